"""The calibration pass against sums by hand, in any number of parts and processes, from the cache and without it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.eva import Eva
from torch import nn
from two_processes import in_two_processes

from recyclelora.adapters.calibration.measure import ImagePass
from recyclelora.adapters.calibration.statistics import GRADIENTS, MOMENTS, Statistics
from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.adapters.selection import select_linears

from .models import tiny_vit

IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def counted(model: nn.Module, **options: object) -> tuple[ImagePass, list[int]]:
    """A pass of the five images, and the list of those that were shown."""
    shown: list[int] = []

    def loss(number: int) -> torch.Tensor:
        shown.append(number)
        return model.forward_features(IMAGES[number][None]).exp().mean()

    return ImagePass(len(IMAGES), "five images", loss, loss, **options), shown


def looked(model: nn.Module, images: ImagePass, what: tuple[str, ...] = (MOMENTS, GRADIENTS)) -> dict[str, Statistics]:
    found: dict[str, Statistics] = {}
    for part in images.statistics(model, select_linears(model), what):
        assert not found.keys() & part.keys()
        found |= part
    return found


def assert_equal(left: dict[str, Statistics], right: dict[str, Statistics]) -> None:
    assert left.keys() == right.keys()
    for name, one in left.items():
        for field in ("moment", "mean", "gradient"):
            assert np.array_equal(getattr(one, field), getattr(right[name], field)), (name, field)


def test_moments_and_gradients_are_those_of_all_images_at_once():
    model = tiny_vit()
    inputs: dict[str, np.ndarray] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, x, y, name=name: inputs.update({name: x[0].detach().flatten(0, 1).double().numpy()})
        )
        for name in select_linears(model)
    ]
    model.forward_features(IMAGES).exp().mean().backward()
    expected = {name: model.get_submodule(name).weight.grad.double().numpy() for name in inputs}
    for handle in handles:
        handle.remove()
    found = looked(model, counted(model)[0])
    assert list(found) == select_linears(model)
    for name, x in inputs.items():
        np.testing.assert_allclose(found[name].moment, x.T @ x / len(x), atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(found[name].mean, x.mean(0), atol=1e-6, rtol=1e-4)
        np.testing.assert_allclose(found[name].gradient, expected[name], atol=1e-7, rtol=1e-3)
    root = found["blocks.0.mlp.fc2"].root
    np.testing.assert_allclose(root @ root, found["blocks.0.mlp.fc2"].moment, atol=1e-8)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_less_memory_takes_more_passes_to_the_same_bits():
    model = tiny_vit()
    whole, small = counted(model), counted(model, memory=1)
    assert_equal(looked(model, whole[0]), looked(model, small[0]))
    assert len(whole[1]) == 1 + 2 * len(IMAGES)  # one image tells which inputs are equal
    assert len(small[1]) == 1 + 2 * len(IMAGES) * len(select_linears(model))


def test_a_pass_stops_behind_the_last_layer():
    model = tiny_vit()
    reached: list[str] = []
    model.blocks[1].register_forward_hook(lambda *_: reached.append("second block"))
    list(counted(model)[0].statistics(model, ["blocks.0.attn.proj"], [MOMENTS]))
    assert not reached


@pytest.mark.parametrize("fused", [True, False])
def test_equal_inputs_are_summed_once_and_fused_ones_are_found(fused):
    torch.manual_seed(0)
    model = Eva(img_size=32, patch_size=16, embed_dim=32, depth=1, num_heads=2, num_classes=0, qkv_fused=fused,
                swiglu_mlp=True, scale_mlp=True)  # fmt: skip
    found = looked(model, counted(model)[0], (MOMENTS,))
    names = ["qkv"] if fused else ["q_proj", "k_proj", "v_proj"]
    same = [found[f"blocks.0.attn.{name}"] for name in names]
    assert all(one.moment is same[0].moment for one in same)
    assert found["blocks.0.mlp.fc1_g"].moment is found["blocks.0.mlp.fc1_x"].moment
    assert len({id(one.moment) for one in found.values()}) == 4


def test_what_was_summed_is_found_again_and_belongs_to_weights_and_images(tmp_path):
    model, cache = tiny_vit(), FactorCache(tmp_path)
    first, _ = counted(model, cache=cache)
    again, shown = counted(model, cache=cache)
    assert_equal(looked(model, first), looked(model, again))
    assert shown == [0]
    other, shown = counted(model, cache=cache)
    looked(model, replace(other, digest="other images"))
    assert len(shown) == 1 + 2 * len(IMAGES)
    moved = tiny_vit(seed=1)
    other, shown = counted(moved, cache=cache)
    looked(moved, other)
    assert len(shown) == 1 + 2 * len(IMAGES)


def test_gradient_checkpointing_changes_no_bit():
    plain, saving = tiny_vit(), tiny_vit()
    saving.set_grad_checkpointing(True)
    assert_equal(looked(plain, counted(plain)[0]), looked(saving, counted(saving)[0]))


def test_layers_that_no_image_reaches_and_numbers_that_are_none_are_said():
    model = tiny_vit()
    model.idle = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="never calls idle"):
        list(counted(model)[0].statistics(model, ["blocks.0.attn.qkv", "idle"], [MOMENTS]))
    with pytest.raises(ValueError, match="labelled images"):
        list(replace(counted(model)[0], loss=None).statistics(model, ["blocks.0.attn.qkv"], [GRADIENTS]))
    nn.init.constant_(model.patch_embed.proj.bias, float("nan"))
    with pytest.raises(ValueError, match=r"inputs of blocks.0.attn.qkv hold NaN"):
        list(counted(model)[0].statistics(model, ["blocks.0.attn.qkv"], [MOMENTS]))


def look_together(rank: int, directory: str) -> None:
    model = tiny_vit()
    images, shown = counted(model, cache=FactorCache(Path(directory) / f"cache{rank}"))  # each node has its own
    found = looked(model, images)
    count = len(shown)
    again = looked(model, images)
    assert_equal(found, again)
    assert len(shown) == count + 1
    fields = ("moment", "mean", "gradient")
    torch.save(
        {(n, f): torch.from_numpy(getattr(s, f)) for n, s in found.items() for f in fields}, f"{directory}/{rank}"
    )


@pytest.mark.slow
def test_two_processes_share_the_images(tmp_path):
    in_two_processes(tmp_path, look_together, str(tmp_path))
    with warnings.catch_warnings():
        first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    model = tiny_vit()
    alone = looked(model, counted(model)[0])
    for (name, field), value in first.items():
        assert torch.equal(value, second[name, field])
        np.testing.assert_allclose(value.numpy(), getattr(alone[name], field), atol=1e-12, rtol=1e-9)
    assert not (tmp_path / "cache1").exists()
