import copy
import re
import warnings

import pytest
import timm
import torch
from low_rank import count_trainable, inject, low_rank
from torch import nn

from recyclelora.adapters.blocks import parse_blocks
from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.adapters.linalg.rrqr import RankDeficientWarning
from recyclelora.adapters.low_rank.config import BY_GRADIENTS, BY_MOMENTS, BranchConfig
from recyclelora.adapters.low_rank.inits import INITIALIZERS
from recyclelora.adapters.low_rank.inject import LowRank, OverlapWarning
from recyclelora.adapters.selection import select_linears
from recyclelora.adapters.state import initial_state, merge

from .models import stored, tiny_vit, train_a_little

RECYCLE = low_rank(main=BranchConfig("rrqr_minor", 4), sub=BranchConfig("rrqr_major", 2))
LORA = low_rank(main=BranchConfig("kaiming", 4))
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_trainable_names_are_exactly_these():
    model = tiny_vit(depth=1)
    inject(model, RECYCLE)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        "blocks.0.attn.qkv.main.lora_a",
        "blocks.0.attn.qkv.main.lora_b",
        "blocks.0.attn.qkv.sub.lora_a",
        "blocks.0.attn.qkv.sub.lora_b",
        "blocks.0.attn.proj.main.lora_a",
        "blocks.0.attn.proj.main.lora_b",
        "blocks.0.attn.proj.sub.lora_a",
        "blocks.0.attn.proj.sub.lora_b",
        "blocks.0.mlp.fc1.main.lora_a",
        "blocks.0.mlp.fc1.main.lora_b",
        "blocks.0.mlp.fc1.sub.lora_a",
        "blocks.0.mlp.fc1.sub.lora_b",
        "blocks.0.mlp.fc2.main.lora_a",
        "blocks.0.mlp.fc2.main.lora_b",
        "blocks.0.mlp.fc2.sub.lora_a",
        "blocks.0.mlp.fc2.sub.lora_b",
    }


def test_every_trainable_parameter_gets_a_gradient():
    model = tiny_vit()
    inject(model, RECYCLE)
    model.forward_features(IMAGES).exp().mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


@pytest.fixture(scope="module")
def dinov2_large() -> nn.Module:
    with torch.device("meta"):
        return timm.create_model("vit_large_patch14_dinov2", pretrained=False)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (low_rank(BranchConfig("rrqr_minor", 32), BranchConfig("rrqr_major", 4)), 14_155_776),
        (low_rank(BranchConfig("rrqr_minor", 32)), 12_582_912),
        (low_rank(BranchConfig("rrqr_major", 4)), 1_572_864),
        (low_rank(BranchConfig("svd_minor", 16), alpha=16, blocks="8:", train_bias=True, split_qkv=True), 4_866_048),
    ],
    ids=["recyclelora", "main", "sub", "soma"],
)
def test_golden_counts_on_dinov2_large(dinov2_large, spec, expected):
    assert len(LowRank(spec).check(dinov2_large)) == (16 * 6 if spec.split_qkv else 96)
    assert count_trainable(dinov2_large, spec) == expected


@pytest.mark.parametrize("options", [{}, {"split_qkv": True}, {"train_bias": True, "blocks": "1:"}])
def test_the_count_on_meta_is_the_count_of_the_injected_model(options):
    spec = low_rank(main=BranchConfig("rrqr_minor", 4), sub=BranchConfig("rrqr_major", 2, train_a=False), **options)
    with torch.device("meta"):
        expected = count_trainable(tiny_vit(), spec)
    model = tiny_vit()
    inject(model, spec)
    assert expected == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_meta_models_are_checked_but_not_injected():
    with torch.device("meta"):
        model = tiny_vit()
    with pytest.raises(ValueError, match="meta device"):
        inject(model, RECYCLE)


@pytest.mark.parametrize("spec", [RECYCLE, LORA, low_rank(BranchConfig("svd_minor", 4), split_qkv=True)])
def test_the_injected_model_starts_as_the_pretrained_one_and_leaves_its_tensors_alone(spec):
    model = tiny_vit().eval()
    state = model.state_dict()  # the very tensors
    before = copy.deepcopy(state)
    expected = model.forward_features(IMAGES)
    inject(model, spec)
    torch.testing.assert_close(model.forward_features(IMAGES), expected, atol=2e-5, rtol=0)
    train_a_little(model)
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_the_result_depends_on_neither_threads_nor_layer_order(tmp_path, monkeypatch):
    spec = low_rank(main=BranchConfig("rrqr_minor", 4), sub=BranchConfig("gaussian", 2))
    states = []
    for cores, cache in ((1, None), (4, None), (2, FactorCache(tmp_path))):
        for module in ("linalg.factorize", "replacing"):
            monkeypatch.setattr(f"recyclelora.adapters.{module}.available_cores", lambda cores=cores: cores)
        model = tiny_vit()
        inject(model, spec, seed=3, cache=cache)
        states.append(stored(model))
    last_only = tiny_vit()
    inject(last_only, low_rank(spec.main, spec.sub, alpha=spec.alpha, blocks="-1"), seed=3)
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])
        torch.testing.assert_close(value, states[2][name], atol=1e-6, rtol=0)
    for name, value in stored(last_only).items():
        assert torch.equal(value, states[0][name])


def test_initial_factors_replace_the_decomposition(monkeypatch):
    model, resumed = tiny_vit(), tiny_vit()
    inject(model, RECYCLE)
    monkeypatch.setattr("recyclelora.adapters.low_rank.inject.factorize", None)
    inject(resumed, RECYCLE, initial=initial_state(model))
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_initial_factors_of_another_adapter_are_refused():
    model = tiny_vit()
    inject(model, RECYCLE)
    initial = initial_state(model)
    with pytest.raises(ValueError, match=r"blocks.0.attn.qkv.main.lora_b is \(192, 4\), expected \(192, 5\)"):
        inject(tiny_vit(), low_rank(BranchConfig("rrqr_minor", 5)), initial=initial)
    with pytest.raises(ValueError, match=r"blocks.0.attn.qkv.q.main.lora_a is missing"):
        inject(tiny_vit(), low_rank(BranchConfig("rrqr_minor", 4), split_qkv=True), initial=initial)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":", [0, 1, 2, 3, 4, 5]),
        ("4:", [4, 5]),
        ("-2:", [4, 5]),
        (":-4", [0, 1]),
        ("::3", [0, 3]),
        ("0,3,5", [0, 3, 5]),
        (" 5, 0:2 ", [0, 1, 5]),
        ("-1", [5]),
    ],
)
def test_block_ranges(text, expected):
    assert parse_blocks(text, 6) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("6", "no block 6 .* blocks 0 to 5"),
        ("6:", "'6:' is empty"),
        ("a", "neither a number nor a slice"),
        ("", "neither a number nor a slice"),
        ("0,,1", "neither a number nor a slice"),
        ("::0", "step"),
    ],
)
def test_bad_block_ranges(text, message):
    with pytest.raises(ValueError, match=message):
        parse_blocks(text, 6)


def test_patterns_select_by_full_name():
    model = tiny_vit()
    assert select_linears(model, ("*.attn.qkv", "blocks.1.mlp.*")) == [
        "blocks.0.attn.qkv",
        "blocks.1.attn.qkv",
        "blocks.1.mlp.fc1",
        "blocks.1.mlp.fc2",
    ]
    assert select_linears(model, ("*.proj",), "1:") == ["blocks.1.attn.proj"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"targets": ("*.qvk",)},
            r"'\*\.qvk' matches no linear layer .* did you mean 'blocks.\d.attn.qkv'\? Available: ",
        ),
        ({"blocks": "2:"}, "'2:' is empty; the model has blocks 0 to 1"),
        ({"targets": ()}, "must hold at least one pattern"),
        ({"main": BranchConfig("kaiming", 65)}, "main.rank=65 at blocks.0.attn.qkv: allowed are 1 to 64"),
        ({"split_qkv": True, "targets": ("*.fc1",)}, "split_qkv: none of the selected layers computes q, k and v"),
    ],
)
def test_bad_selections_leave_the_model_alone(spec, message):
    model = tiny_vit()
    with pytest.raises(ValueError, match=message):
        inject(model, low_rank(**{"main": BranchConfig("kaiming", 4), **spec}))
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("main", "options", "message"),
    [
        (BranchConfig("rrqr", 4), {}, "main.init='rrqr': must be one of kaiming"),
        (BranchConfig("kaiming", 0), {}, "main.rank=0: "),
        (BranchConfig("kaiming", 4), {"scale_rule": "half"}, "scale_rule='half': must be one of"),
        (BranchConfig("kaiming", 4), {"scale": 2.0}, "scale=2.0: is needed with scale_rule=fixed, and only there"),
        (BranchConfig("kaiming", 4), {"scale_rule": "fixed"}, "scale=None: is needed"),
        (BranchConfig("kaiming", 4), {"alpha": 0}, "alpha=0: must be a finite number above 0"),
        (BranchConfig("rrqr_minor", 4), {"pivoting": "weak"}, "pivoting='weak': must be one of greedy, strong"),
        (BranchConfig("rrqr_minor", 4), {"pivoting": "strong", "pivoting_f": 0.9}, "pivoting_f=0.9: "),
        (BranchConfig("rrqr_minor", 4), {"pivoting": "strong", "precision": "float32"}, "must be float64"),
        (
            BranchConfig("rrqr_minor", 4),
            {"sub": BranchConfig("rrqr_minor_values", 2), "pivoting": "strong"},
            "strong needs one rank for both branches",
        ),
    ],
)
def test_options_made_by_hand_are_checked_like_any_other(main, options, message):
    model = tiny_vit()
    with pytest.raises(ValueError, match=message):
        inject(model, low_rank(main, **options))
    assert type(model.blocks[0].attn.qkv) is nn.Linear


def test_scale_rules():
    main, sub = BranchConfig("rrqr_minor", 32), BranchConfig("rrqr_major", 4)
    assert low_rank(main, sub).layer_scale == 1 / 36
    assert low_rank(main, sub, alpha=3, scale_rule="sqrt_rank").layer_scale == 0.5
    assert low_rank(main, sub, scale_rule="fixed", scale=0.1).layer_scale == 0.1


def test_a_damaged_layer_is_named_and_nothing_is_replaced():
    model = tiny_vit()
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[0, 0] = torch.nan
    for init in ("rrqr_minor", "svd_major"):
        with pytest.raises(ValueError, match=r"^blocks.1.mlp.fc1: weight holds NaN"):
            inject(model, low_rank(BranchConfig(init, 4)))
    assert isinstance(model.blocks[0].attn.qkv, nn.Linear)


@pytest.mark.parametrize("init", ["rrqr_minor", "rrqr_major_values", "svd_minor", "svd_minor_left", "qr"])
def test_a_layer_of_zeros_is_named(init):
    model = tiny_vit()
    nn.init.zeros_(model.blocks[0].attn.proj.weight)
    with pytest.raises(ValueError, match=r"^blocks.0.attn.proj: weight is all zeros"):
        inject(model, low_rank(BranchConfig(init, 4)))


@pytest.mark.parametrize("init", ["rrqr_minor", "rrqr_minor_values", "svd_minor", "svd_minor_left"])
def test_a_layer_without_minor_directions_is_named_and_adapted(init):
    model = tiny_vit().eval()
    with torch.no_grad():
        weight = model.blocks[1].mlp.fc1.weight
        weight[:, 8:] = weight[:, :8].repeat(1, 7)  # eight columns, each eight times
    expected = model.forward_features(IMAGES)
    with pytest.warns(RankDeficientWarning, match=r"^blocks.1.mlp.fc1: ") as caught:
        inject(model, low_rank(BranchConfig(init, 4)))
    assert len([w for w in caught if issubclass(w.category, RankDeficientWarning)]) == 1
    torch.testing.assert_close(model.forward_features(IMAGES), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("init", sorted(INITIALIZERS.keys() - {*BY_MOMENTS, *BY_GRADIENTS}))
def test_low_precision_weights_start_from_the_factors_of_their_exact_values(init, dtype):
    low, high = tiny_vit(depth=1).to(dtype), tiny_vit(depth=1)
    high.load_state_dict({name: value.float() for name, value in low.state_dict().items()})
    for model in (low, high):
        inject(model, low_rank(BranchConfig(init, 4)))
    for (name, left), right in zip(initial_state(low).items(), initial_state(high).values(), strict=True):
        assert torch.equal(left, right), name


def test_strong_pivoting_reaches_the_layers(tmp_path):
    main, sub = BranchConfig("rrqr_minor", 16), BranchConfig("rrqr_major", 2)
    states = []
    for options in ({}, {"pivoting": "strong", "pivoting_f": 1.0}, {"pivoting": "strong", "pivoting_f": 50.0}):
        model = tiny_vit().eval()
        expected = model.forward_features(IMAGES)
        inject(model, low_rank(main, sub, **options), cache=FactorCache(tmp_path))
        torch.testing.assert_close(model.forward_features(IMAGES), expected, atol=2e-5, rtol=0)
        states.append(initial_state(model))
    greedy, strong, loose = states
    assert any(not torch.equal(strong[name], value) for name, value in greedy.items())
    assert all(torch.equal(loose[name], value) for name, value in greedy.items())


def test_tied_and_foreign_layers_are_refused_by_name():
    tied = tiny_vit()
    tied.blocks[1].mlp.fc1.weight = tied.blocks[0].mlp.fc1.weight
    with pytest.raises(ValueError, match=r"blocks.0.mlp.fc1 and blocks.1.mlp.fc1 share one weight"):
        inject(tied, LORA)
    shared = tiny_vit()
    shared.blocks[1] = shared.blocks[0]
    with pytest.raises(ValueError, match=r"share one weight"):
        inject(shared, LORA)

    model = nn.Module()
    model.blocks = nn.ModuleList([nn.MultiheadAttention(8, 2)])
    with pytest.raises(ValueError, match=r"blocks.0.out_proj belongs to an nn.MultiheadAttention"):
        inject(model, LORA)
    with pytest.raises(ValueError, match="Linear has no `blocks`"):
        inject(nn.Linear(2, 2), LORA)


class ReadsWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.fc.weight)


def test_a_parent_that_bypasses_the_layer_is_refused():
    model = nn.Module()
    model.blocks = nn.Sequential(ReadsWeight())
    with pytest.raises(ValueError, match=r"blocks.0.fc: ReadsWeight reads its weight directly"):
        inject(model, LORA)


@pytest.mark.parametrize("split_qkv", [False, True])
def test_evas_separate_biases_stay_in_use(split_qkv):
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 0}
    model = timm.models.eva.Eva(qkv_fused=True, qkv_bias=True, **settings).eval()
    for block in model.blocks:
        nn.init.normal_(block.attn.q_bias)
        nn.init.normal_(block.attn.v_bias)
    expected = model.forward_features(IMAGES)
    inject(model, low_rank(RECYCLE.main, RECYCLE.sub, split_qkv=split_qkv))
    torch.testing.assert_close(model.forward_features(IMAGES), expected, atol=2e-5, rtol=0)
    train_a_little(model)
    adapted = model.forward_features(IMAGES)
    assert not torch.allclose(adapted, expected, atol=1e-2)
    torch.testing.assert_close(merge(model).forward_features(IMAGES), adapted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("main", "sub", "words"),
    [
        (("rrqr_minor", 60), ("rrqr_major", 8), r"main \(rrqr_minor, rank 60\) and sub .* in 4 of its .* in 8 of 8"),
        (("svd_major", 3), ("svd_major", 2), "both start in 2 of its directions; so in 8 of 8 layers"),
        (("rrqr_minor", 60), ("rrqr_major", 4), None),
        (("rrqr_minor", 60), ("svd_major", 8), None),
        (("rrqr_minor", 60), ("kaiming", 8), None),
    ],
)
def test_directions_that_both_branches_start_in_are_said(main, sub, words):
    spec = low_rank(BranchConfig(*main), BranchConfig(*sub))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inject(tiny_vit(), spec)
    said = [str(w.message) for w in caught if issubclass(w.category, OverlapWarning)]
    assert len(said) == (words is not None) and all(re.search(words, text) for text in said)
