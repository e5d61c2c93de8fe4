import math

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from recyclelora.adapters.config import ReinConfig
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.state import ParameterRule
from recyclelora.adapters.tokens.rein import Rein, ReinTokens

from .models import tiny_vit

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SMALL = Rein(ReinConfig(num_tokens=10, token_rank=4, query_width=16))


def make(depth: int = 2, width: int = 8, **changes: object) -> ReinTokens:
    settings = {"num_tokens": 5, "token_rank": 3, "patch_size": 16, "scale": 0.5, "query_width": 4, "seed": 0}
    return ReinTokens(depth, width, **{**settings, **changes})


def test_one_refinement_by_the_formula():
    rein = make()
    f = torch.randn(2, 7, 8)
    t = rein.token_a[1] @ rein.token_b[1]
    a = torch.softmax(f @ t.T / math.sqrt(8), dim=-1)
    w_t, w_f = rein.token_to_feature, rein.feature_to_feature
    delta = a[:, :, 1:] @ (t[1:] @ w_t.weight.T + w_t.bias)
    delta = (delta + f) @ w_f.weight.T + w_f.bias
    torch.testing.assert_close(rein.refine(1, f), f + rein.scale * delta)


def test_queries_by_the_formula():
    rein = make(depth=3)
    queries = torch.stack(
        [F.linear(a @ b, rein.token_to_query.weight, rein.token_to_query.bias)
         for a, b in zip(rein.token_a, rein.token_b, strict=True)]
    )  # fmt: skip
    summary = torch.cat([queries.max(0).values, queries.sum(0) / 3, queries[2]], dim=1)
    expected = summary @ rein.merge_queries.weight.T + rein.merge_queries.bias
    assert rein.queries().shape == (5, 4)
    torch.testing.assert_close(rein.queries(), expected)


def test_the_tokens_start_uniform_within_the_published_bound():
    rein = make(depth=24, width=64, num_tokens=100, token_rank=16)
    bound = math.sqrt(6 / (3 * 16**2 + math.sqrt(16 * 64)))
    for factor in (rein.token_a, rein.token_b):
        assert 0.99 * bound < factor.abs().max() <= bound
    assert torch.equal(make().token_a, make().token_a) and not torch.equal(make().token_a, make(seed=1).token_a)
    before = torch.random.get_rng_state()
    make()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("queries", "expected"), [(True, 2_990_081), (False, 2_530_817)])
def test_golden_counts_on_dinov2_large(queries, expected):
    with torch.device("meta"):
        model = timm.create_model("vit_large_patch14_dinov2", pretrained=False)
    adapted = Rein(ReinConfig()).apply(model, AdapterContext(has_queries=queries))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected
    assert (adapted.query is not None) == queries
    assert sum(p.numel() for name, p in model.named_parameters() if name in adapted.rules) == expected


def intermediates(model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(patch tokens, prefix tokens) after every block, as the backbones read them."""
    return model.forward_intermediates(
        IMAGES, norm=False, output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
    )


@pytest.mark.parametrize("reg_tokens", [0, 4])
def test_blocks_hand_on_refined_patch_tokens_and_untouched_prefix_tokens(reg_tokens):
    plain, refined = tiny_vit(reg_tokens=reg_tokens).eval(), tiny_vit(reg_tokens=reg_tokens).eval()
    SMALL.apply(refined, AdapterContext())
    refined.rein.scale.data.fill_(0.5)
    before, after = intermediates(plain), intermediates(refined)
    assert after[0][1].shape[1] == 1 + reg_tokens
    assert torch.equal(after[0][1], before[0][1])
    torch.testing.assert_close(after[0][0], refined.rein.refine(0, before[0][0]))
    x = torch.cat([after[0][1], after[0][0]], dim=1)
    patches = plain.blocks[1](x)[:, 1 + reg_tokens :]
    torch.testing.assert_close(after[1][0], refined.rein.refine(1, patches))


def test_a_scale_of_zero_is_the_pretrained_model_to_the_last_bit():
    plain, refined = tiny_vit().eval(), tiny_vit().eval()
    SMALL.apply(refined, AdapterContext())
    refined.rein.scale.data.zero_()
    assert torch.equal(refined.forward_features(IMAGES), plain.forward_features(IMAGES))


def test_only_the_chosen_blocks_are_refined():
    plain, refined = tiny_vit().eval(), tiny_vit().eval()
    Rein(ReinConfig(num_tokens=10, token_rank=4, blocks="1:")).apply(refined, AdapterContext())
    refined.rein.scale.data.fill_(0.5)
    assert refined.rein.token_a.shape[0] == 1
    (first, second), (first_before, second_before) = intermediates(refined), intermediates(plain)
    assert torch.equal(first[0], first_before[0])
    torch.testing.assert_close(second[0], refined.rein.refine(0, second_before[0]))


def test_maps_without_prefix_tokens_are_refined_too():
    class Block(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    model = nn.Module()
    model.embed_dim, model.blocks = 8, nn.Sequential(Block())
    model.anything = nn.Linear(1, 1)
    Rein(ReinConfig(num_tokens=5, token_rank=3)).apply(model, AdapterContext())
    x = torch.randn(2, 3, 4, 8)  # SAM's blocks: (B, H, W, c)
    expected = model.rein.refine(0, (x + 1).view(2, 12, 8)).view(2, 3, 4, 8)
    assert torch.equal(model.blocks(x), expected)


@pytest.mark.parametrize(
    ("link", "has_queries", "linked"),
    [(None, True, True), (None, False, False), (True, True, True), (False, True, False)],
)
def test_the_link_follows_the_decoder_unless_it_is_set(link, has_queries, linked):
    model = tiny_vit()
    adapted = Rein(ReinConfig(num_tokens=10, token_rank=4, query_width=16, link=link)).apply(
        model, AdapterContext(has_queries=has_queries)
    )
    assert (adapted.query is not None) == linked == hasattr(model.rein, "merge_queries")
    if linked:
        assert adapted.query().shape == (10, 16)


@pytest.mark.parametrize(
    ("link_features", "has_queries", "made"),
    [(None, True, True), (True, True, True), (False, True, False), (None, False, False)],
)
def test_first_features_follow_the_link_unless_they_are_to_be_a_table(link_features, has_queries, made):
    rein = Rein(ReinConfig(num_tokens=10, token_rank=4, query_width=16, link_features=link_features))
    assert rein.apply(tiny_vit(), AdapterContext(has_queries=has_queries)).query_features == made


def test_features_of_queries_that_are_not_lent_are_refused():
    with pytest.raises(ValueError, match="link_features=true: there are no lent queries"):
        Rein(ReinConfig(link=False, link_features=True)).apply(tiny_vit(), AdapterContext(has_queries=True))


def test_a_link_to_a_decoder_without_queries_is_refused():
    model = tiny_vit()
    with pytest.raises(ValueError, match="link=true: the decoder has no queries"):
        Rein(ReinConfig(link=True)).apply(model, AdapterContext())
    assert not hasattr(model, "rein")


def test_tokens_and_scale_do_not_decay():
    rules = Rein(ReinConfig(num_tokens=10, token_rank=4, lr_mult=2.0)).apply(tiny_vit(), AdapterContext()).rules
    assert rules["rein.token_a"] == rules["rein.scale"] == ParameterRule(2.0, 0.0, "rein.tokens")
    assert rules["rein.token_to_feature.bias"] == ParameterRule(2.0, None, "rein")
