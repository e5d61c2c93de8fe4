"""Put the low-rank family into a model: find the layers, decompose, replace, freeze."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from recyclelora.adapters.calibration.statistics import Statistics, of_part, whole_layer
from recyclelora.adapters.linalg.factorize import factorize
from recyclelora.adapters.linalg.rrqr import RRQR
from recyclelora.adapters.low_rank.config import BY_GRADIENTS, BY_MOMENTS, BranchConfig, LowRankConfig
from recyclelora.adapters.low_rank.factors import Factors, LayerWeight, branch_rng
from recyclelora.adapters.low_rank.inits import INITIALIZERS, RRQR_MAJOR, RRQR_MINOR
from recyclelora.adapters.low_rank.layer import Branch, LowRankLinear, SplitQKV, split_rows
from recyclelora.adapters.low_rank.ranks import shared_out
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.replacing import check_rank, for_each_layer, replace, selected_linears
from recyclelora.adapters.selection import role
from recyclelora.adapters.state import ParameterRule, low_rank_layers
from recyclelora.system.checks import accept

SVD_MAJOR, SVD_MINOR = ("svd_major",), ("svd_minor", "svd_minor_left")
OPPOSITE = ((RRQR_MAJOR, RRQR_MINOR), (SVD_MAJOR, SVD_MINOR))
"""Initialisations by the decomposition, and by the end of it, that they start from."""


@dataclass(frozen=True)
class LowRank:
    """The low-rank family as a method: LoRA, PiSSA, MiLoRA, SoMA, OLoRA and RecycleLoRA differ by options only."""

    options: LowRankConfig

    def check(self, model: nn.Module) -> dict[str, nn.Linear]:
        """See `method.Method`; gives the layers that will be adapted, by name, a fused qkv in three parts if asked."""
        o = self.options
        accept(o)
        names = selected_linears(model, o.targets, o.blocks)
        layers: dict[str, nn.Linear] = {}
        for name, linear in names.items():
            if o.split_qkv and name.endswith(".qkv"):
                if linear.out_features % 3:
                    raise ValueError(f"{name}: {linear.out_features} outputs cannot be split into q, k and v")
                layers.update({f"{name}.{part}": rows for part, rows in split_rows(linear).items()})
            else:
                layers[name] = linear
        if o.split_qkv and not any(name.endswith(".qkv.q") or role(name, names).endswith(".qkv") for name in layers):
            raise ValueError("split_qkv: none of the selected layers computes q, k and v")
        for branch, chosen in o.branches.items():
            check_rank(chosen.rank, layers, f"{branch}.rank")
        return layers

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`.

        The pretrained tensors themselves are never written to. With ``context.initial`` (from `state.initial_state` of
        the run that is resumed) nothing is decomposed, and the frozen residuals come out as they were; ``model`` may
        then be on the meta device.
        """
        layers = self.check(model)
        if context.initial is not None:
            factors = {name: self._stored(name, layer, context) for name, layer in layers.items()}
        elif any(layer.weight.is_meta for layer in layers.values()):
            raise ValueError("the model is on the meta device and has no weights to start from")
        else:
            _say_overlaps(layers, self.options)
            factors = self._computed(model, layers, context)
        layers = {name: layer for name, layer in layers.items() if factors[name]}  # EVA may give a layer no rank
        subtract = context.autocast and self.options.mixed_precision == "subtract"
        made = {name: self._layer(layer, factors[name], subtract) for name, layer in layers.items()}
        fused = {name.removesuffix(".q") for name in made if self.options.split_qkv and name.endswith(".qkv.q")}
        replacements: dict[str, nn.Module] = {
            name: SplitQKV(*(made.pop(f"{name}.{part}") for part in "qkv")) for name in fused
        }
        replace(model, replacements | made)
        return Adapted(_rules(model, self.options))

    def _computed(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], context: AdapterContext
    ) -> dict[str, dict[str, Factors]]:
        """Layer -> branch -> initial factors; in a thread pool, for the SVDs, and in parts where data are looked at."""
        o, decomposed = self.options, self._decomposed(layers, context)

        def initialise(part: Mapping[str, Statistics | None], name: str) -> dict[str, Factors]:
            layer = LayerWeight(layers[name].weight, o.layer_scale, decomposed.get(name), name, part[name])
            return {
                branch: INITIALIZERS[chosen.init](
                    layer, self._rank(chosen, layer), branch_rng(context.seed, name, branch)
                )
                for branch, chosen in o.branches.items()
            }

        found: dict[str, dict[str, Factors]] = {}
        for part in self._statistics(model, layers, context):
            found |= for_each_layer(part, partial(initialise, part))
        if o.main.init == "eva":
            budget = {name: found[name]["main"] for name in layers}
            return {n: {"main": f} if f.rank else {} for n, f in shared_out(budget, o.main.rank * len(budget)).items()}
        return {name: found[name] for name in layers}

    def _rank(self, chosen: BranchConfig, layer: LayerWeight) -> int:
        """How many directions a layer is asked for."""
        return min(round(chosen.rank * self.options.rho), *layer.weight.shape) if chosen.init == "eva" else chosen.rank

    def _statistics(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], context: AdapterContext
    ) -> Iterator[Mapping[str, Statistics | None]]:
        """What is known of the data at each layer, in parts; q, k and v of a fused qkv have its inputs."""
        if not self.options.looks_at:
            yield dict.fromkeys(layers)
            return
        if context.calibration is None:
            raise ValueError(
                f"adapter={self.options.name} starts from data: only a training run has images for it to look at"
            )
        held: dict[str, list[str]] = {}
        for name in layers:
            held.setdefault(whole_layer(name), []).append(name)
        for part in context.calibration.statistics(model, list(held), self.options.looks_at):
            yield {
                name: of_part(found, name, layers[name].out_features)
                for whole, found in part.items()
                for name in held[whole]
            }

    def _decomposed(self, layers: Mapping[str, nn.Linear], context: AdapterContext) -> dict[str, RRQR]:
        """Pivoted QR of every layer, if a branch asks for it."""
        o = self.options
        leading, trailing = (
            max((branch.rank for branch in o.branches.values() if branch.init in names), default=0)
            for names in (RRQR_MAJOR, RRQR_MINOR)
        )
        if leading == trailing == 0:
            return {}
        return factorize(
            {name: layer.weight for name, layer in layers.items()}, leading, trailing,
            precision="float32" if o.precision == "float32" else "float64",
            strong=o.pivoting_f if o.pivoting == "strong" else None, cache=context.cache, progress=context.progress,
        )  # fmt: skip

    def _stored(self, name: str, layer: nn.Linear, context: AdapterContext) -> dict[str, Factors]:
        """Initial factors of one layer out of a checkpoint; an integer A holds the positions of ones."""
        initial, factors = context.initial or {}, {}
        for branch, chosen in self.options.branches.items():
            if f"{name}.{branch}.lora_a" not in initial:
                if chosen.init == "eva" and initial:  # the run gave this layer no rank
                    continue
                weight = LayerWeight(layer.weight, self.options.layer_scale)
                factors[branch] = _seeded_factors(weight, name, branch, chosen, context.seed)
                continue
            a, b = (initial[f"{name}.{branch}.lora_{factor}"] for factor in "ab")
            rank = len(a) if chosen.init == "eva" else chosen.rank
            expected = (layer.out_features, rank)
            if tuple(b.shape) != expected or len(a) != rank:
                raise ValueError(f"initial factors: {name}.{branch}.lora_b is {tuple(b.shape)}, expected {expected}")
            one_hot = not a.is_floating_point()
            factors[branch] = Factors(
                b=b.detach().cpu().float(),
                a=None if one_hot else a.detach().cpu().float(),
                a_index=a.detach().cpu().long() if one_hot else None,
                from_data=chosen.init in (*BY_MOMENTS, *BY_GRADIENTS),
            )
        return factors

    def _layer(self, linear: nn.Linear, factors: Mapping[str, Factors], subtract: bool) -> LowRankLinear:
        o, width, device = self.options, linear.in_features, linear.weight.device
        branches = {
            name: Branch(factors[name], width, train_a=chosen.train_a, train_b=chosen.train_b, device=device)
            for name, chosen in o.branches.items()
        }
        return LowRankLinear(
            linear, branches, scale=o.layer_scale, residual=o.residual, train_bias=o.train_bias, subtract=subtract
        )


class OverlapWarning(UserWarning):
    """Two branches start in the same directions of a layer."""


def _say_overlaps(layers: Mapping[str, nn.Linear], options: LowRankConfig) -> None:
    """Warn where main and sub are given directions twice: from one end, or from both ends of a layer too narrow."""
    main, sub = options.main, options.sub
    if sub is None:
        return
    starts = [
        (number, end)
        for branch in (main, sub)
        for number, ends in enumerate(OPPOSITE)
        for end, names in enumerate(ends)
        if branch.init in names
    ]
    if len(starts) < 2 or starts[0][0] != starts[1][0]:
        return
    opposite = starts[0] != starts[1]
    shared = {
        name: main.rank + sub.rank - min(linear.weight.shape) if opposite else min(main.rank, sub.rank)
        for name, linear in layers.items()
    }
    shared = {name: count for name, count in shared.items() if count > 0}
    if shared:
        name, count = max(shared.items(), key=lambda item: item[1])
        message = (
            f"{name}: main ({main.init}, rank {main.rank}) and sub ({sub.init}, rank {sub.rank}) both start "
            f"in {count} of its directions; so in {len(shared)} of {len(layers)} layers"
        )
        warnings.warn(message, OverlapWarning, stacklevel=3)


def _seeded_factors(layer: LayerWeight, name: str, branch: str, chosen: BranchConfig, seed: int) -> Factors:
    """Factors that `state.initial_state` leaves out: B0 = 0 adds nothing to the weight, and A0 comes from the seed."""
    with contextlib.suppress(ValueError):  # an initialisation that needs a decomposition
        factors = INITIALIZERS[chosen.init](layer, chosen.rank, branch_rng(seed, name, branch))
        if not factors.b.any():
            return factors
    raise ValueError(f"initial factors: {name}.{branch}.lora_a is missing; they belong to another adapter")


def _rules(model: nn.Module, options: LowRankConfig) -> dict[str, ParameterRule]:
    """Rule of every trainable parameter by name; trained biases follow the main branch."""
    rules = {}
    for name, layer in low_rank_layers(model):
        for branch_name, chosen in options.branches.items():
            prefix = f"{name}.{branch_name}"
            for factor, lr_mult in (("lora_a", chosen.lr_mult), ("lora_b", chosen.lr_mult * chosen.lr_mult_b)):
                group = f"{branch_name}.{factor}"
                rules[f"{prefix}.{factor}"] = ParameterRule(lr_mult, chosen.weight_decay, group)
        if layer.bias is not None:
            rules[f"{name}.bias"] = ParameterRule(options.main.lr_mult, options.main.weight_decay, "bias")
    return {name: rule for name, rule in rules.items() if model.get_parameter(name).requires_grad}
