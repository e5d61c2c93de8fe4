"""AdaptFormer, VPT-deep and tuning of norms: their formulas by hand, and the families of backbones."""

import math

import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

from recyclelora.adapters.controls.adaptformer import AdaptFormer
from recyclelora.adapters.controls.config import AdaptFormerConfig, NormsConfig, VptConfig
from recyclelora.adapters.controls.vpt import Vpt
from recyclelora.adapters.controls.whole import Norms
from recyclelora.adapters.method import AdapterContext

from .models import tiny_vit

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CONTEXT = AdapterContext(seed=3)


def tiny_eva(**changes: object) -> nn.Module:
    """EVA02's or DINOv3's kind: rotary positions, a class token and registers, q, k and v biases apart."""
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 0}
    return Eva(**{**settings, "use_rot_pos_emb": True, "num_reg_tokens": 2, "dynamic_img_size": True, **changes}).eval()


def tiny_sam() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformerSAM(
        img_size=32, patch_size=16, embed_dim=64, depth=2, num_heads=4, num_classes=0, use_rel_pos=True, window_size=2,
        global_attn_indexes=(1,),
    ).eval()  # fmt: skip


def filled(model: nn.Module, part: str) -> nn.Module:
    """With random numbers where the added modules start at zero."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if part in name:
            parameter.data.normal_(generator=generator)
    return model


def test_adaptformer_by_the_formula():
    plain, model = tiny_vit().eval(), tiny_vit().eval()
    AdaptFormer(AdaptFormerConfig(width=8, scale=0.3)).apply(model, CONTEXT)
    filled(model, "adaptformer")
    x = torch.randn(2, 5, 64)
    for block, adapted in zip(plain.blocks, model.blocks, strict=True):
        after = x + block.attn(block.norm1(x))
        down, up = adapted.adaptformer.down, adapted.adaptformer.up
        added = 0.3 * ((after @ down.weight.T + down.bias).clamp(min=0) @ up.weight.T + up.bias)
        expected = after + block.mlp(block.norm2(after)) + added
        torch.testing.assert_close(adapted(x), expected)
        x = expected


def test_adaptformer_starts_as_published():
    model = tiny_vit()
    AdaptFormer(AdaptFormerConfig()).apply(model, CONTEXT)
    first, second = (block.adaptformer for block in model.blocks)
    assert not any(p.any() for p in (first.down.bias, first.up.weight, first.up.bias))
    assert 0.99 * 64**-0.5 < first.down.weight.abs().max() <= 64**-0.5
    assert not torch.equal(first.down.weight, second.down.weight)
    again = tiny_vit()
    AdaptFormer(AdaptFormerConfig()).apply(again, CONTEXT)
    assert torch.equal(again.blocks[0].adaptformer.down.weight, first.down.weight)


def test_vpt_replaces_the_prompts_before_every_block_and_drops_them_at_the_end():
    plain, model = tiny_vit(reg_tokens=2).eval(), tiny_vit(reg_tokens=2).eval()
    Vpt(VptConfig(num_prompts=4)).apply(model, CONTEXT)
    bound = math.sqrt(6 / (3 * 16**2 + 64))
    assert 0.95 * bound < model.vpt.table.abs().max() <= bound
    x = plain._pos_embed(plain.patch_embed(IMAGES))
    x = torch.cat([x[:, :3], torch.zeros(2, 4, 64), x[:, 3:]], 1)
    for prompts, block in zip(model.vpt.table, plain.blocks, strict=True):
        x = block(torch.cat([x[:, :3], prompts.expand(2, -1, -1), x[:, 7:]], 1))
    expected = plain.norm(torch.cat([x[:, :3], x[:, 7:]], 1))
    torch.testing.assert_close(model.forward_features(IMAGES), expected)


def test_prompts_are_dropped_out_in_training_alone():
    model = tiny_vit()
    Vpt(VptConfig(num_prompts=4, dropout=0.5)).apply(model, CONTEXT)
    like, table = torch.zeros(2, 1, 64), model.vpt.table[1]
    assert torch.equal(model.eval().vpt(1, like), table.expand(2, -1, -1))
    dropped = model.train().vpt(1, like)
    assert torch.equal(dropped[0], dropped[1]) and 0.3 < (dropped == 0).float().mean() < 0.7
    assert torch.equal(dropped[dropped != 0], (2 * table.expand(2, -1, -1))[dropped != 0])


def test_prompts_carry_no_rotary_position():
    """Turning every patch's position by the same angle changes nothing between patches, but something towards tokens
    without a position; so prompts must stand with those."""
    plain, model = tiny_eva(), tiny_eva()
    Vpt(VptConfig(num_prompts=4, blocks="0")).apply(model, CONTEXT)
    x, rope = plain._pos_embed(plain.patch_embed(IMAGES))
    attention = plain.blocks[0].attn
    attention.num_prefix_tokens = 3 + 4
    prompted = torch.cat([x[:, :3], model.vpt.table[0].expand(2, -1, -1), x[:, 3:]], 1)
    out = plain.blocks[0](prompted, rope=rope)
    torch.testing.assert_close(model.blocks[0](x, rope=rope), torch.cat([out[:, :3], out[:, 7:]], 1))
    assert model.blocks[1].attn.num_prefix_tokens == 3


@pytest.mark.parametrize("build", [tiny_vit, tiny_eva, tiny_sam])
def test_controls_fit_every_family_of_backbones(build):
    expected = build().eval().forward_features(IMAGES)
    for method in (AdaptFormer(AdaptFormerConfig(width=4)), Norms(NormsConfig()), Vpt(VptConfig(num_prompts=2))):
        model = build().eval()
        if build is tiny_sam and isinstance(method, Vpt):
            with pytest.raises(ValueError, match="SAM"):
                method.apply(model, CONTEXT)
            continue
        method.apply(model, CONTEXT)
        found = model.forward_features(IMAGES)
        if isinstance(method, Vpt):
            assert found.shape == expected.shape and not torch.allclose(found, expected)
        else:  # what is trained may choose another kernel
            torch.testing.assert_close(found, expected)
        found.square().mean().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_norms_and_biases_of_the_chosen_blocks_train():
    model = tiny_eva()
    rules = Norms(NormsConfig(blocks="1:", weight_decay=None)).apply(model, CONTEXT).rules
    assert {"blocks.1.norm1.weight", "blocks.1.attn.q_bias", "blocks.1.attn.proj.bias", "blocks.1.norm2.bias"} <= set(
        rules
    )
    assert all(name.startswith("blocks.1.") and (".norm" in name or "bias" in name) for name in rules)
    assert {rule.weight_decay for rule in rules.values()} == {None}
    alone = Norms(NormsConfig(biases=False)).apply(tiny_vit(), CONTEXT).rules
    assert set(alone) == {f"blocks.{b}.norm{n}.{p}" for b in (0, 1) for n in (1, 2) for p in ("weight", "bias")}


def test_blocks_without_a_second_norm_are_refused():
    model = nn.Module()
    model.blocks = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(ValueError, match=r"blocks\.0 is a Linear without `norm2`"):
        AdaptFormer(AdaptFormerConfig()).apply(model, CONTEXT)
