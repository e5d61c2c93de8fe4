"""What passes the checks of options is built: no value is refused only once weights are there."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from timm.models.vision_transformer import VisionTransformer

from recyclelora.adapters.config import ADAPTERS
from recyclelora.adapters.low_rank.config import INITS, SCALE_RULES, BranchConfig
from recyclelora.adapters.method import AdapterContext
from recyclelora.config.build import build_decoder
from recyclelora.config.testing import shown_images
from recyclelora.models.decoders.config import DECODERS, PYRAMIDS
from recyclelora.models.decoders.loss_options import MaskLossConfig
from recyclelora.system.checks import refusals

STEPS, CLASSES, WIDTH = 20, 5, 16
few = settings(max_examples=40, deadline=None, derandomize=True)


def any_of(*values: object) -> SearchStrategy:
    return st.sampled_from(values)


def branch() -> SearchStrategy[BranchConfig]:
    return st.builds(
        BranchConfig, init=any_of(*INITS), rank=any_of(1, 2, WIDTH), lr_mult=any_of(0.5), lr_mult_b=any_of(1.0),
        weight_decay=any_of(0.0, 0.05), train_a=st.booleans(), train_b=st.booleans(),
    )  # fmt: skip


LAYERS = {
    "targets": any_of(["*"], ["*.attn.qkv"], ["*.qkv", "*.fc1"]), "blocks": any_of(":", "0", "-1:", "::2"),
    "lr_mult": any_of(0.5), "weight_decay": any_of(0.0, 0.1),
}  # fmt: skip
REIN: dict[str, SearchStrategy] = {
    "num_tokens": any_of(2, 8),
    "token_rank": any_of(1, 4),
    "scale": any_of(0.001),
    "link": any_of(None, True, False),
    "query_width": any_of(32, 64),
    "blocks": LAYERS["blocks"],
    "link_features": any_of(None, True, False),
    "weight_decay": any_of(None, 0.1),
}
FORM = {"form": any_of("published", "released")}
VALUES: dict[str, dict[str, SearchStrategy]] = {
    "low_rank": {
        "main": branch(), "sub": st.none() | branch(), "alpha": any_of(1.0, 4.0),
        "scale_rule": any_of(*SCALE_RULES), "scale": any_of(None, 0.5), "residual": st.booleans(),
        "split_qkv": st.booleans(), "train_bias": st.booleans(), "targets": any_of(["*"], ["*.attn.qkv"]),
        "blocks": LAYERS["blocks"],
        "precision": any_of("float64", "float32"), "pivoting": any_of("greedy", "strong"),
        "pivoting_f": any_of(1.0, 2.0), "mixed_precision": any_of("fold", "subtract"),
    },
    "dora": LAYERS | {"rank": any_of(1, WIDTH), "alpha": any_of(4.0)},
    "vera": LAYERS | {"rank": any_of(1, 64), "d_initial": any_of(0.1), "projection_seed": any_of(0, 7)},
    "adalora": LAYERS | {
        "init_rank": any_of(1, 4, WIDTH), "target_rank": any_of(1, 4, WIDTH), "t_init": any_of(None, 0, 3, 12),
        "t_final": any_of(None, 0, 9, 19), "delta_t": any_of(None, 1, 50), "orthogonality": any_of(0.0, 0.5),
    },
    "rein": REIN,
    "set": REIN | FORM,
    "causal_tune": REIN | FORM,
    "frozen": {},
    "full": {"lr_mult": any_of(0.1), "weight_decay": any_of(None, 0.1), "decay_all": st.booleans()},
    "norms": {"biases": st.booleans(), "blocks": LAYERS["blocks"], "weight_decay": any_of(None, 0.1)},
    "adaptformer": {"width": any_of(1, 64), "scale": any_of(0.1), "blocks": LAYERS["blocks"]},
    "vpt": {"num_prompts": any_of(1, 5), "dropout": any_of(0.0, 0.1), "blocks": LAYERS["blocks"]},
    "lora_xs": LAYERS | {"rank": any_of(1, WIDTH)},
    "svft": LAYERS,
    "oplora": LAYERS | {"rank": any_of(1, 4), "protected": any_of(1, 4)},
    "kasa": LAYERS | {"rank": any_of(1, 4), "shrinkage": any_of(0.0, 0.1), "orthogonality": any_of(0.0, 0.1)},
    "delora": LAYERS | {"rank": any_of(1, WIDTH), "strength": any_of(15.0)},
    "hira": LAYERS | {"rank": any_of(1, WIDTH)},
}  # fmt: skip
SIZES = {"width": any_of(32, 48, 64, 96)}
QUERIES = SIZES | {
    "num_queries": any_of(5, 8), "num_heads": any_of(1, 2, 3, 4, 5),
    "loss": st.builds(MaskLossConfig, num_points=any_of(1, 8), importance=any_of(0.0, 1.0)),
}  # fmt: skip
DECODER_VALUES: dict[str, dict[str, SearchStrategy]] = {
    "linear": {"dropout": any_of(0.0, 0.5)},
    "segformer": SIZES,
    "fpn": SIZES | {"head_width": any_of(32, 40), "dropout": any_of(0.0, 0.5), "pyramid": any_of(*PYRAMIDS)},
    "upernet": SIZES | {"pyramid": any_of(*PYRAMIDS)},
    "dpt": SIZES,
    "eomt": QUERIES | {"num_blocks": any_of(1, 2)},
    "mask2former": QUERIES | {
        "encoder_layers": any_of(1, 2), "decoder_layers": any_of(1, 4), "decoder_width": any_of(1, 16),
        "encoder_width": any_of(16), "pyramid": any_of(*PYRAMIDS), "decay_query_feat": st.booleans(),
    },
}  # fmt: skip


def test_every_shipped_part_is_tried():
    assert VALUES.keys() == ADAPTERS.keys() and DECODER_VALUES.keys() == DECODERS.keys()


def vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=16, embed_dim=WIDTH, depth=2, num_heads=2, num_classes=0)


@pytest.mark.parametrize("kind", VALUES)
def test_an_adapter_that_is_accepted_is_built(kind):
    @few
    @given(st.builds(ADAPTERS[kind], name=st.just(kind), **VALUES[kind]))
    def every(options):
        decoder = DECODERS["mask2former"](num_queries=8, width=32)
        if refusals(options) or list(getattr(options, "check_with", lambda *_: ())(decoder, STEPS)):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = vit()
            context = AdapterContext(max_steps=STEPS, has_queries=True, calibration=shown_images(model))
            adapted = options.method().apply(model, context)
        assert bool(adapted.rules) == (kind != "frozen")

    every()


@pytest.mark.parametrize("kind", DECODER_VALUES)
def test_a_decoder_that_is_accepted_is_built(kind):
    @few
    @given(st.builds(DECODERS[kind], **DECODER_VALUES[kind]))
    def every(options):
        if not refusals(options):
            with torch.device("meta"):
                build_decoder(options, [WIDTH] * 4, CLASSES)

    every()
