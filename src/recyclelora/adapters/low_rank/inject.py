"""Put adapters into a model: find, decompose, replace, freeze."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from recyclelora.adapters.linalg.factor_cache import FactorCache, Progress, available_cores, factorize
from recyclelora.adapters.linalg.rrqr import RRQR
from recyclelora.adapters.low_rank.inits import INITIALIZERS, RRQR_MAJOR, RRQR_MINOR, Factors, LayerWeight, branch_rng
from recyclelora.adapters.low_rank.layer import Branch, LowRankLinear, SplitQKV, split_rows
from recyclelora.adapters.low_rank.spec import AdapterSpec, BranchSpec
from recyclelora.adapters.method import Adapted, Setting
from recyclelora.adapters.replacing import check_rank, replace
from recyclelora.adapters.selection import role, select_linears
from recyclelora.adapters.state import parameter_rules

SVD_MAJOR, SVD_MINOR = ("svd_major",), ("svd_minor", "svd_minor_left")
OPPOSITE = ((RRQR_MAJOR, RRQR_MINOR), (SVD_MAJOR, SVD_MINOR))
"""Initialisations by the decomposition, and by the end of it, that they start from."""


@dataclass(frozen=True)
class InjectReport:
    """What an injection did.

    Attributes:
        num_layers: low-rank layers made (three per fused qkv when it is split).
        num_trainable: trainable parameters of the model afterwards.
        seconds: wall time.
        rank_deficient: layers of which a direction that an adapter starts in is rounding noise.
    """

    num_layers: int
    num_trainable: int
    seconds: float
    rank_deficient: tuple[str, ...]


def inject(
    model: nn.Module,
    spec: AdapterSpec,
    *,
    seed: int = 0,
    cache: FactorCache | None = None,
    num_threads: int | None = None,
    initial: Mapping[str, torch.Tensor] | None = None,
    progress: Progress | None = None,
    autocast: bool = False,
) -> InjectReport:
    """Freeze ``model`` and replace the selected linear layers by low-rank ones, in place.

    The pretrained tensors themselves are never written to. With ``initial`` (from `state.initial_state` of the run
    that is resumed) nothing is decomposed, and the frozen residuals come out as they were; ``model`` may then be on
    the meta device. ``autocast`` tells that forwards will run under it, which ``spec.mixed_precision`` is about.

    Raises:
        ValueError: naming the pattern, layer or rank at fault; the model is then unchanged.
    """
    started = time.perf_counter()
    layers = plan(model, spec)
    if initial is None and any(layer.weight.is_meta for layer in layers.values()):
        raise ValueError("the model is on the meta device and has no weights; use count_trainable for its numbers")
    deficient: tuple[str, ...] = ()
    if initial is None:
        _say_overlaps(layers, spec)
        decomposed = _decompose(layers, spec, cache, num_threads, progress)
        factors, deficient = _initialise(layers, spec, decomposed, seed, num_threads)
    else:
        factors = {name: _stored_factors(name, layer, spec, initial, seed) for name, layer in layers.items()}
    _replace(model, layers, spec, factors, autocast and spec.mixed_precision == "subtract")
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return InjectReport(len(layers), trainable, time.perf_counter() - started, deficient)


@dataclass(frozen=True)
class LowRank:
    """The low-rank family as a method."""

    spec: AdapterSpec

    def check(self, model: nn.Module) -> None:
        """See `method.Method`."""
        plan(model, self.spec)

    def apply(self, model: nn.Module, setting: Setting) -> Adapted:
        """See `method.Method.apply`."""
        s = setting
        inject(
            model, self.spec, seed=s.seed, cache=s.cache, initial=s.initial, progress=s.progress, autocast=s.autocast
        )
        return Adapted(parameter_rules(model, self.spec))


def plan(model: nn.Module, spec: AdapterSpec) -> dict[str, nn.Linear]:
    """Name -> linear layer to adapt, with fused qkv layers in three parts if asked; checks the ranks."""
    layers: dict[str, nn.Linear] = {}
    names = select_linears(model, spec.targets, spec.blocks)
    for name in names:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        if spec.split_qkv and name.endswith(".qkv"):
            if linear.out_features % 3:
                raise ValueError(f"{name}: {linear.out_features} outputs cannot be split into q, k and v")
            layers.update({f"{name}.{part}": rows for part, rows in split_rows(linear).items()})
        else:
            layers[name] = linear
    if spec.split_qkv and not any(name.endswith(".qkv.q") or role(name, names).endswith(".qkv") for name in layers):
        raise ValueError("split_qkv: none of the selected layers computes q, k and v")
    for branch, chosen in spec.branches.items():
        check_rank(chosen.rank, layers, f"{branch}.rank")
    return layers


class OverlapWarning(UserWarning):
    """Two branches start in the same directions of a layer."""


def _say_overlaps(layers: Mapping[str, nn.Linear], spec: AdapterSpec) -> None:
    """Warn where main and sub are given directions twice: from one end, or from both ends of a layer too narrow."""
    if spec.sub is None:
        return
    starts = [
        (number, end)
        for branch in (spec.main, spec.sub)
        for number, ends in enumerate(OPPOSITE)
        for end, names in enumerate(ends)
        if branch.init in names
    ]
    if len(starts) < 2 or starts[0][0] != starts[1][0]:
        return
    ranks, opposite = (spec.main.rank, spec.sub.rank), starts[0] != starts[1]
    shared = {
        name: sum(ranks) - min(linear.in_features, linear.out_features) if opposite else min(ranks)
        for name, linear in layers.items()
    }
    shared = {name: count for name, count in shared.items() if count > 0}
    if shared:
        name, count = max(shared.items(), key=lambda item: item[1])
        message = (
            f"{name}: main ({spec.main.init}, rank {ranks[0]}) and sub ({spec.sub.init}, rank {ranks[1]}) both start "
            f"in {count} of its directions; so in {len(shared)} of {len(layers)} layers"
        )
        warnings.warn(message, OverlapWarning, stacklevel=3)


def count_trainable(model: nn.Module, spec: AdapterSpec) -> int:
    """Trainable backbone parameters that `inject` would give; needs shapes only, so ``model`` may be on meta."""
    total = 0
    for linear in plan(model, spec).values():
        for branch in spec.branches.values():
            total += branch.rank * (branch.train_a * linear.in_features + branch.train_b * linear.out_features)
        if spec.train_bias and linear.bias is not None:
            total += linear.out_features
    return total


def _decompose(
    layers: Mapping[str, nn.Linear],
    spec: AdapterSpec,
    cache: FactorCache | None,
    num_threads: int | None,
    progress: Progress | None,
) -> dict[str, RRQR]:
    """Pivoted QR of every layer, if a branch asks for it."""
    leading, trailing = (
        max((branch.rank for branch in spec.branches.values() if branch.init in names), default=0)
        for names in (RRQR_MAJOR, RRQR_MINOR)
    )
    if leading == trailing == 0:
        return {}
    return factorize(
        {name: layer.weight for name, layer in layers.items()}, leading, trailing, precision=spec.precision,
        strong=spec.pivoting_f if spec.pivoting == "strong" else None,
        cache=cache, num_threads=num_threads, progress=progress,
    )  # fmt: skip


def _initialise(
    layers: Mapping[str, nn.Linear],
    spec: AdapterSpec,
    decomposed: Mapping[str, RRQR],
    seed: int,
    num_threads: int | None,
) -> tuple[dict[str, dict[str, Factors]], tuple[str, ...]]:
    """Layer -> branch -> initial factors, and the layers that gave noise; in a thread pool, for the SVDs."""

    def initialise(name: str) -> tuple[dict[str, Factors], bool]:
        layer = LayerWeight(layers[name].weight, spec.layer_scale, decomposed.get(name), name)
        try:
            factors = {
                branch: INITIALIZERS[chosen.init](layer, chosen.rank, branch_rng(seed, name, branch))
                for branch, chosen in spec.branches.items()
            }
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        noise = layer.rrqr is not None and layer.rrqr.holds_noise(min(layer.weight.shape))
        return factors, noise or layer.deficient

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(num_threads or available_cores()) as pool:
        found = dict(zip(layers, pool.map(initialise, layers), strict=True))
    return {name: factors for name, (factors, _) in found.items()}, tuple(n for n, (_, noise) in found.items() if noise)


def _stored_factors(
    name: str, layer: nn.Linear, spec: AdapterSpec, initial: Mapping[str, torch.Tensor], seed: int
) -> dict[str, Factors]:
    """Initial factors of one layer out of a checkpoint; an integer A holds the positions of ones."""
    factors = {}
    for branch, chosen in spec.branches.items():
        if f"{name}.{branch}.lora_a" not in initial:
            factors[branch] = _seeded_factors(LayerWeight(layer.weight, spec.layer_scale), name, branch, chosen, seed)
            continue
        a, b = (initial[f"{name}.{branch}.lora_{factor}"] for factor in "ab")
        expected = (layer.out_features, chosen.rank)
        if tuple(b.shape) != expected or len(a) != chosen.rank:
            raise ValueError(f"initial factors: {name}.{branch}.lora_b is {tuple(b.shape)}, expected {expected}")
        one_hot = not a.is_floating_point()
        factors[branch] = Factors(
            b=b.detach().cpu().float(),
            a=None if one_hot else a.detach().cpu().float(),
            a_index=a.detach().cpu().long() if one_hot else None,
        )
    return factors


def _seeded_factors(layer: LayerWeight, name: str, branch: str, chosen: BranchSpec, seed: int) -> Factors:
    """Factors that `state.initial_state` leaves out: B0 = 0 adds nothing to the weight, and A0 comes from the seed."""
    with contextlib.suppress(ValueError):  # an initialisation that needs a decomposition
        factors = INITIALIZERS[chosen.init](layer, chosen.rank, branch_rng(seed, name, branch))
        if not factors.b.any():
            return factors
    raise ValueError(f"initial factors: {name}.{branch}.lora_a is missing; they belong to another adapter")


def _replace(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    spec: AdapterSpec,
    factors: Mapping[str, Mapping[str, Factors]],
    subtract: bool,
) -> None:
    """Swap the layers for low-rank ones; nothing here can fail halfway for a reason of the user's."""
    made = {name: _low_rank(layer, spec, factors[name], subtract) for name, layer in layers.items()}
    fused = {name.removesuffix(".q") for name in made if spec.split_qkv and name.endswith(".qkv.q")}
    replacements: dict[str, nn.Module] = {
        name: SplitQKV(*(made.pop(f"{name}.{part}") for part in "qkv")) for name in fused
    }
    replace(model, replacements | made)


def _low_rank(linear: nn.Linear, spec: AdapterSpec, factors: Mapping[str, Factors], subtract: bool) -> LowRankLinear:
    branches = {
        name: Branch(
            factors[name],
            linear.in_features,
            train_a=chosen.train_a,
            train_b=chosen.train_b,
            device=linear.weight.device,
        )
        for name, chosen in spec.branches.items()
    }
    return LowRankLinear(
        linear, branches,
        scale=spec.layer_scale, residual=spec.residual, train_bias=spec.train_bias, subtract=subtract,
    )  # fmt: skip
