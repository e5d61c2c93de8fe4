"""The layers that a run changed, each with its pretrained weight, its factors where it has any, and its update; and how
far they moved in all."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recyclelora.adapters.analysis import Matrix, Product, difference, norm, total
from recyclelora.adapters.calibration.statistics import whole_layer
from recyclelora.adapters.low_rank.layer import Branch, LowRankLinear, SplitQKV
from recyclelora.adapters.rounding import FLOAT32
from recyclelora.adapters.state import merge, unmergeable

ALL = "all"
"""The branch that stands for the sum of a layer's branches, or for the whole update of a layer without branches."""

INIT, TRAINED, UPDATE = "init", "trained", "update"
"""The stages: B0 A0, B A, and B A - B0 A0."""


@dataclass(frozen=True)
class Factored:
    """One branch: its product at the start and now, and where the ones of a 0/1 A0 were."""

    initial: Product
    trained: Product
    positions: Tensor | None = None

    @property
    def update(self) -> Product:
        """B A - B0 A0."""
        return difference(self.trained, self.initial)


@dataclass(frozen=True)
class ChangedLayer:
    """A linear layer that a run adapted or changed; every tensor float64.

    Attributes:
        name: such as ``blocks.3.attn.qkv``.
        weight: W0 (out, in).
        update: what was added to W0 (out, in).
        branches: by name; empty for methods without factors.
        scale: s of the branches.
        eps: spacing of the numbers around 1 in the format of the weight, or of the factors that the update is in.
    """

    name: str
    weight: Tensor
    update: Matrix
    branches: Mapping[str, Factored] = field(default_factory=dict)
    scale: float = 1.0
    eps: float = FLOAT32

    @property
    def rounding(self) -> float:
        """Frobenius norm below which something added to W0 is numerically zero: the rounding of W0 itself."""
        return self.eps * float(torch.linalg.vector_norm(self.weight))

    @property
    def block(self) -> int | None:
        """0-based number of its block."""
        found = re.match(r"blocks\.(\d+)\.", self.name)
        return int(found[1]) if found else None

    @property
    def type(self) -> str:
        """The last part of its name: qkv, proj, fc1, fc2; q, k, v where they are adapted separately."""
        return self.name.rpartition(".")[2]

    def stages(self) -> dict[str, dict[str, Matrix]]:
        """Branch -> stage -> matrix, ``all`` last: the products without their scale, or the update alone."""
        found: dict[str, dict[str, Matrix]] = {
            name: {INIT: b.initial, TRAINED: b.trained, UPDATE: b.update} for name, b in self.branches.items()
        }
        branches = list(self.branches.values())
        if branches:
            found[ALL] = {INIT: total([b.initial for b in branches]), TRAINED: total([b.trained for b in branches])}
        factors_say_all = branches and isinstance(self.update, Product)
        found.setdefault(ALL, {})[UPDATE] = total([b.update for b in branches]) if factors_say_all else self.update
        return found


def changed_layers(
    model: nn.Module, pretrained: nn.Module, device: torch.device, only: Collection[str] | None = None
) -> Iterator[ChangedLayer]:
    """Every linear layer of ``pretrained`` that ``model`` adapts or has changed, one at a time, in model order.

    Args:
        model: the adapted model.
        pretrained: the same one as it was.
        device: where float64 is computed.
        only: names of layers of ``pretrained`` to look at; None: all of them.

    Raises:
        ValueError: the method changes layers in a way that cannot be merged into a weight.
    """
    names = [name for name, module in pretrained.named_modules() if _is_linear(module)]
    modules = {name: model.get_submodule(name) for name in names}
    known = all(type(module) is nn.Linear or _is_low_rank(module) for module in modules.values())
    merged = model if known else merge(model)
    for name, module in modules.items():
        if only is not None and name not in only:
            continue
        weight = _weight(pretrained, name, device)
        if _is_low_rank(module):
            yield from _low_rank(name, module, weight)
            continue
        update = _weight(merged, name, device) - weight
        eps = torch.finfo(merged.get_parameter(f"{name}.weight").dtype).eps
        if isinstance(module, LowRankLinear):
            yield ChangedLayer(name, weight, update, _factors(module, device), module.scale, eps)
        elif update.any():
            yield ChangedLayer(name, weight, update, eps=eps)


def movement(model: nn.Module, pretrained: nn.Module, device: torch.device) -> float | None:
    """How far a method moved the weights: the mean of ||dW||_F / ||W0||_F over all linear layers of ``pretrained``.

    A layer that stays counts as 0, so that who adapts a quarter of the layers moves a quarter; q, k and v of a fused
    layer are one. None for a method that works beside the weights.
    """
    if unmergeable(model) is not None:
        return None
    sizes = {n: float(_weight(pretrained, n, device).norm()) for n, m in pretrained.named_modules() if _is_linear(m)}
    squares = dict.fromkeys(sizes, 0.0)
    for layer in changed_layers(model, pretrained, device):
        squares[whole_layer(layer.name)] += norm(layer.update) ** 2
    shares = [math.sqrt(squares[name]) / size for name, size in sizes.items() if size]
    return math.fsum(shares) / len(shares) if shares else None


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _is_low_rank(module: nn.Module) -> bool:
    """Whether s B A is all that the layer adds; a subclass, such as one of another package, does something else."""
    parts = (module.q, module.k, module.v) if isinstance(module, SplitQKV) else (module,)
    return all(type(part) is LowRankLinear for part in parts)


def _low_rank(name: str, module: nn.Module, weight: Tensor) -> Iterator[ChangedLayer]:
    """The layer, or its three parts where q, k and v are adapted separately; the update stays in factors."""
    if isinstance(module, SplitQKV):
        for part, rows in zip("qkv", weight.chunk(3), strict=True):
            yield from _low_rank(f"{name}.{part}", getattr(module, part), rows)
        return
    assert isinstance(module, LowRankLinear)
    branches = _factors(module, weight.device)
    parts = [branch.update if module.residual else branch.trained for branch in branches.values()]
    yield ChangedLayer(name, weight, total(parts) * module.scale, branches, module.scale)


def _factors(layer: LowRankLinear, device: torch.device) -> dict[str, Factored]:
    return {name: _factored(branch, device) for name, branch in layer.branches().items()}


def _factored(branch: Branch, device: torch.device) -> Factored:
    initial = branch.initial
    start = Product(_float64(initial.b, device), _float64(initial.dense_a(branch.lora_a.shape[1]), device))
    trained = Product(_float64(branch.lora_b, device), _float64(branch.lora_a, device))
    return Factored(start, trained, None if initial.a_index is None else initial.a_index.to(device))


def _weight(model: nn.Module, layer: str, device: torch.device) -> Tensor:
    return _float64(model.get_parameter(f"{layer}.weight"), device)


def _float64(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.detach().to(device, torch.float64)
