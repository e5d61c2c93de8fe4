"""Draw docs/images/method_directions.png and method_data.png: in which directions each method begins to learn.

    python benchmarks/first_directions.py        # a minute on one core; needs the weights of DINOv2-S

One layer of DINOv2-S, blocks.6.attn.proj. Each method takes one step of gradient descent on random gradients, which
prefer no direction; the share of its update's energy in each twentieth of an orthonormal basis, relative to chance, is
then what the method prefers. Bases: the singular vectors of W0, the eigenvectors of C = E[x x^T], and the singular
vectors of the gradient; C and gradient of eight training crops of the built-in streets.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recyclelora.adapters.calibration.statistics import GRADIENTS, MOMENTS, Statistics
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.subspaces import energy_along, singular_vectors
from recyclelora.config.build import build_backbone, calibration_pass, locate_weights
from recyclelora.config.compose import composed, home
from recyclelora.drawing import style
from recyclelora.training.calibration import looked_at

LAYER = "blocks.6.attn.proj"
IMAGES, GRADIENT_DRAWS, BINS, STEP = 8, 8, 20, 1e-2
BY_WEIGHT = (
    "full", "lora", "dora", "delora", "hira", "pissa", "milora", "olora", "kasa", "oplora", "lora_xs", "svft",
    "recyclelora_sub", "recyclelora_main", "recyclelora",
)  # fmt: skip
BY_DATA = (
    "full", "lora", "recyclelora", "recyclelora_data", "recyclelora_null", "lora_null", "corda", "corda_ipm", "eva",
    "lora_ga", "lora_one",
)  # fmt: skip


class Known:
    """Statistics that have been taken already, as a method asks for them."""

    def __init__(self, statistics: Statistics) -> None:
        self.known = statistics

    def statistics(
        self, model: nn.Module, layers: Sequence[str], what: Sequence[str]
    ) -> Iterator[dict[str, Statistics]]:
        """See `statistics.Calibration`."""
        yield dict.fromkeys(layers, self.known)


def options(folder: str, *overrides: str) -> Any:
    """A run's configuration; ``folder`` takes its outputs, of which there are none."""
    return composed("train", ["experiment=demo", f"output_dir={folder}", *overrides])


def looked_up(folder: str) -> tuple[nn.Linear, Statistics]:
    """The layer, and what the data tell of it."""
    config = options(folder, "adapter=lora_ga", f"adapter.calibration.images={IMAGES}")
    backbone = build_backbone(config, locate_weights(config.backbone))
    with calibration_pass(backbone, config, looked_at(config, "cpu")) as images:
        (part,) = images.statistics(backbone.model, [LAYER], (MOMENTS, GRADIENTS))
    linear = backbone.model.get_submodule(LAYER)
    assert isinstance(linear, nn.Linear)
    return linear, part[LAYER]


def first_update(adapter: Any, linear: nn.Linear, statistics: Statistics, draw: int) -> Tensor:
    """What one small step on a random gradient adds to the weight (out, in), float64."""
    holder = nn.Module()
    copy = nn.Linear(linear.in_features, linear.out_features)
    copy.load_state_dict(linear.state_dict())
    holder.blocks = nn.ModuleList([nn.ModuleDict({"layer": copy})])
    adapter.method().apply(holder, AdapterContext(seed=draw, calibration=Known(statistics)))
    layer = holder.get_submodule("blocks.0.layer")
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    before = weight_of(layer, linear.in_features)
    gradient = torch.randn(before.shape, generator=torch.Generator().manual_seed(draw))
    slopes = torch.autograd.grad((before * gradient).sum(), trained, materialize_grads=True)
    pairs = list(zip(trained, slopes, strict=True))
    size = max(float(slope.norm() / parameter.detach().norm().clamp_min(1)) for parameter, slope in pairs)
    with torch.no_grad():
        for parameter, slope in pairs:
            parameter -= STEP / size * slope
        return (weight_of(layer, linear.in_features) - before).double()


def weight_of(layer: nn.Module, width: int) -> Tensor:
    """What a layer computes without its bias, as a weight (out, in)."""
    weight: Tensor = (layer(torch.eye(width)) - layer(torch.zeros(1, width))).T
    return weight


def preference(name: str, linear: nn.Linear, statistics: Statistics, folder: str, bases: Sequence[Any]) -> list[Any]:
    """For every (basis, rows): energy in each of the bins relative to chance (BINS,)."""
    adapter = options(folder, f"adapter={name}").adapter
    if hasattr(adapter, "targets"):
        adapter.targets, adapter.blocks = ["*"], ":"
    updates = [first_update(adapter, linear, statistics, draw) for draw in range(GRADIENT_DRAWS)]
    found = []
    for basis, rows in bases:
        energy = torch.stack([energy_along(update, basis, rows=rows) for update in updates]).mean(0).numpy()
        found.append(np.array([part.sum() / len(part) * len(basis) for part in np.array_split(energy, BINS)]))
    return found


def draw(names: Sequence[str], panels: Sequence[str], found: dict[str, list[Any]], title: str, path: Path) -> None:
    """One row a method, one panel a basis."""
    figure, axes = style.grid(1, len(panels), title, panel=(3.6, 0.27 * len(names) + 1.2))
    for place, (axis, words) in enumerate(zip(axes[0], panels, strict=True)):
        values = np.log2(np.array([found[name][place] for name in names]).clip(2**-4, 2**4))
        picture = axis.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-4, vmax=4, extent=(0, 100, len(names), 0))
        axis.set_yticks(np.arange(len(names)) + 0.5, names if place == 0 else [])
        axis.grid(visible=False)
        style.heading(axis, words)
        axis.set_xlabel("directions, largest first (%)", fontsize=9)
    bar = figure.colorbar(picture, ax=axes, pad=0.015, ticks=[-4, -2, 0, 2, 4])
    bar.ax.set_yticklabels(["1/16", "1/4", "1", "4", "16"], fontsize=8)
    bar.set_label("energy of the first step / chance", fontsize=9)
    style.save(figure, path)


def main() -> None:
    """Both pictures."""
    torch.manual_seed(0)
    images = home() / "docs/images"
    with tempfile.TemporaryDirectory() as folder:
        linear, statistics = looked_up(folder)
        u, v = singular_vectors(linear.weight.detach().double())
        assert statistics.gradient is not None
        left, right = singular_vectors(torch.from_numpy(statistics.gradient))
        inputs = torch.from_numpy(statistics.spectrum[1]).flip(1)
        own, data = [(u, False), (v, True)], [(inputs, True), (left, False), (right, True)]
        weights = {name: preference(name, linear, statistics, folder, own) for name in BY_WEIGHT}
        by_data = {name: preference(name, linear, statistics, folder, data) for name in BY_DATA}
    draw(
        BY_WEIGHT, ["$W_0$, output side", "$W_0$, input side"], weights,
        "Where methods begin to learn, among the singular directions of the weight",
        images / "method_directions.png",
    )  # fmt: skip
    draw(
        BY_DATA, ["inputs $E[xx^T]$", "gradient, output side", "gradient, input side"], by_data,
        "Where methods begin to learn, among the directions of the data", images / "method_data.png",
    )  # fmt: skip


if __name__ == "__main__":
    main()
