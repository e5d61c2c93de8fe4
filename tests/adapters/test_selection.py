"""Block designs that differ from a plain ViT: adapted exactly, or refused by name."""

import copy

import pytest
import timm
import torch
from low_rank import inject, low_rank
from timm.layers import SwiGLUPacked
from timm.models.eva import Eva
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from recyclelora.adapters.low_rank.config import BranchConfig
from recyclelora.adapters.selection import select_linears
from recyclelora.adapters.state import low_rank_layers, merge

from .models import tiny_vit, train_a_little

RECYCLE = low_rank(main=BranchConfig("rrqr_minor", 4), sub=BranchConfig("rrqr_major", 2))
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SIZES = {"img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 0}


def giant_vit() -> nn.Module:
    """As DINOv2's ViT-g: gate and value packed in one fc1."""
    return tiny_vit(mlp_layer=SwiGLUPacked, mlp_ratio=4, init_values=1e-1)


def eva02(**changes: object) -> nn.Module:
    """As EVA02: SwiGLU of two layers with a norm inside, rotary positions, q, k and v apart."""
    torch.manual_seed(0)
    options = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "use_rot_pos_emb": True, **changes}
    return Eva(mlp_ratio=4 * 2 / 3, **SIZES, **options)


def packed_eva() -> nn.Module:
    """As EVA02 small: SwiGLU with gate and value packed."""
    return eva02(qkv_fused=True, scale_mlp=False)


SWIGLU = [
    (giant_vit, ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]),
    (eva02, ["attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.proj", "mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"]),
    (packed_eva, ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]),
]


@pytest.mark.parametrize(("build", "layers"), SWIGLU)
def test_gated_blocks_are_adapted_exactly(build, layers):
    model = build().eval()
    pretrained = copy.deepcopy(model)
    with torch.no_grad():
        expected = model.forward_features(IMAGES)
    inject(model, RECYCLE)
    assert len(list(low_rank_layers(model))) == 2 * len(layers)
    assert select_linears(pretrained) == [f"blocks.{block}.{layer}" for block in range(2) for layer in layers]
    torch.testing.assert_close(model.forward_features(IMAGES), expected, atol=2e-5, rtol=0)
    train_a_little(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)
    adapted = model.forward_features(IMAGES)
    assert not torch.allclose(adapted, expected, atol=1e-2)
    torch.testing.assert_close(merge(model).forward_features(IMAGES), adapted, atol=2e-4, rtol=1e-4)


class ClipBlock(nn.Module):
    """A block as OpenAI's CLIP has them."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(x, x, x)[0]
        return x + self.mlp(x)


def model_of(*blocks: nn.Module) -> nn.Module:
    model = nn.Module()
    model.blocks = nn.Sequential(*blocks)
    return model


def test_multihead_attention_is_refused_and_can_be_left_out():
    torch.manual_seed(0)
    model, x = model_of(ClipBlock(), ClipBlock()), torch.randn(2, 3, 8)
    for targets in (("*",), ("*.attn.*",), ("*.out_proj",)):
        with pytest.raises(ValueError, match=r"^blocks.0.attn.out_proj belongs to an nn.MultiheadAttention, .* narrow"):
            inject(model, low_rank(BranchConfig("rrqr_minor", 2), targets=targets))
    expected = model.blocks(x)
    inject(model, low_rank(BranchConfig("rrqr_minor", 2), targets=["*.mlp.*"]))
    assert len(list(low_rank_layers(model))) == 4
    torch.testing.assert_close(model.blocks(x), expected, atol=3e-6, rtol=0)


def test_torch_s_transformer_layer_is_refused():
    block = nn.TransformerEncoderLayer(8, 2, 16)
    with pytest.raises(ValueError, match=r"blocks.0.linear1: TransformerEncoderLayer reads its weight directly"):
        select_linears(model_of(block), ("*.linear*",))


class Reader(nn.Module):
    """Reads the weight of a layer two levels below, in a helper."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(8, 8))
        self.mlp.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.helper(x)

    def helper(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.mlp.fc.weight)


class Asker(Reader):
    """Asks the weight for its kind only, and initialises it."""

    def helper(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp.fc(x.to(self.mlp.fc.weight.dtype))

    def init_weights(self) -> None:
        nn.init.zeros_(self.mlp.fc.weight)


def test_code_that_reads_the_weight_is_refused_and_code_that_asks_for_its_dtype_is_not():
    with pytest.raises(ValueError, match=r"blocks.0.mlp.fc: Reader reads its weight directly"):
        select_linears(model_of(Reader()))
    assert select_linears(model_of(Reader()), ("*.mlp.0",)) == ["blocks.0.mlp.0"]
    assert select_linears(model_of(Asker())) == ["blocks.0.mlp.0", "blocks.0.mlp.fc"]


def test_a_parametrised_layer_is_refused():
    model = tiny_vit()
    parametrizations.weight_norm(model.blocks[0].mlp.fc1)
    with pytest.raises(ValueError, match=r"blocks.0.mlp.fc1 is a ParametrizedLinear, not a plain nn.Linear"):
        select_linears(model)


def tied_parameter(model: nn.Module) -> None:
    model.blocks[1].mlp.fc1.weight = model.blocks[0].mlp.fc1.weight


def tied_storage(model: nn.Module) -> None:
    model.blocks[1].mlp.fc1.weight.data = model.blocks[0].mlp.fc1.weight.data


def tied_block(model: nn.Module) -> None:
    model.blocks[1] = model.blocks[0]


def tied_outside(model: nn.Module) -> None:
    model.extra = nn.Linear(64, 256)
    model.extra.weight = model.blocks[0].mlp.fc1.weight


@pytest.mark.parametrize(
    ("tie", "both"),
    [
        (tied_parameter, "blocks.0.mlp.fc1 and blocks.1.mlp.fc1"),
        (tied_storage, "blocks.0.mlp.fc1 and blocks.1.mlp.fc1"),
        (tied_block, "blocks.0.attn.qkv and blocks.1.attn.qkv"),
        (tied_outside, "blocks.0.mlp.fc1 and extra"),
    ],
)
@pytest.mark.parametrize("blocks", [":", "0"])
def test_tied_weights_are_refused_even_where_the_other_layer_is_not_selected(tie, both, blocks):
    model = tiny_vit()
    tie(model)
    with pytest.raises(ValueError, match=f"^{both} share one weight"):
        select_linears(model, blocks=blocks)
    if tie is not tied_block:
        assert select_linears(model, ("*.qkv",), blocks)  # the tie is elsewhere


@pytest.mark.parametrize("name", ["vit_giant_patch14_dinov2", "eva02_large_patch14_224"])
def test_large_gated_backbones_are_selected_whole(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    linears = [name for name, module in model.blocks.named_modules(prefix="blocks") if isinstance(module, nn.Linear)]
    assert select_linears(model) == linears


def test_a_bare_name_is_told_the_pattern_that_it_stands_for():
    with pytest.raises(ValueError, match=r"targets: 'qkv' matches no linear layer .*; did you mean '\*\.qkv'\?"):
        select_linears(tiny_vit(), ["qkv"])
    assert select_linears(tiny_vit(), ["*.qkv"]) == ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]
