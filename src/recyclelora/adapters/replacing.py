"""Put layers of a method into the places of a model's linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from recyclelora.adapters.low_rank.factors import Factors
from recyclelora.adapters.low_rank.layer import frozen_linear
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.selection import select_linears, separate_qkv_bias
from recyclelora.adapters.state import uniform_rules
from recyclelora.system.checks import accept
from recyclelora.system.cores import available_cores

T = TypeVar("T")


class AdaptedLinear(nn.Module):
    """Takes the place of an ``nn.Linear`` and keeps its tensors, frozen and never written to.

    A subclass adds parameters of its own, in float32 whatever the precision of the weight, and tells by
    `merged_weight` which weight computes the same.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(linear.weight.detach(), requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    def train_factors(self, start: Factors) -> None:
        """Let A (rank, in) and B (out, rank) train, as ``lora_a`` and ``lora_b``: copies beside the weight."""
        device = self.weight.device
        self.lora_a = nn.Parameter(start.dense_a(self.in_features).to(device, copy=True))
        self.lora_b = nn.Parameter(start.b.to(device, copy=True))

    def merged_weight(self) -> torch.Tensor:
        """The weight (out, in) of an ordinary linear layer that computes the same, as a new tensor."""
        raise NotImplementedError

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """That layer, sharing no tensor with this one."""
        weight = self.merged_weight().to(self.weight.dtype)
        return frozen_linear(weight, None if self.bias is None else self.bias.detach().clone())


def selected_linears(model: nn.Module, targets: Sequence[str], blocks: str) -> dict[str, nn.Linear]:
    """The layers that `selection.select_linears` names, by name; raises what it raises."""
    linears = {}
    for name in select_linears(model, targets, blocks):
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        linears[name] = linear
    return linears


def replace(model: nn.Module, replacements: Mapping[str, nn.Module]) -> None:
    """Freeze ``model`` and put modules into the places of linear layers by name; nothing here can fail halfway."""
    model.requires_grad_(False)
    separate_qkv_bias(model, list(replacements))
    for name, module in replacements.items():
        model.set_submodule(name, module)


def check_rank(rank: int, linears: Mapping[str, nn.Linear], key: str = "rank") -> None:
    """Raise a ValueError naming ``key`` and a layer that has no room for ``rank`` independent directions."""
    for name, linear in linears.items():
        allowed = min(linear.in_features, linear.out_features)
        if not 1 <= rank <= allowed:
            raise ValueError(f"{key}={rank} at {name}: allowed are 1 to {allowed}")


class ReplacingMethod:
    """A method that puts a layer of its own into the place of each linear layer that its options choose.

    Attributes:
        room: what of the options says how many independent directions a layer needs, such as ``rank+1``; None: any,
            as of options without a rank.
        decomposes: whether making a layer takes an SVD, so that several are made at once.
    """

    room: ClassVar[str | None] = "rank"
    decomposes: ClassVar[bool] = False

    def __init__(self, options: Any) -> None:
        self.options = options

    def check(self, model: nn.Module) -> dict[str, nn.Linear]:
        """See `method.Method`; gives the layers that will be adapted, by name."""
        accept(self.options)
        linears = selected_linears(model, self.options.targets, self.options.blocks)
        if self.room is not None and (self.room != "rank" or hasattr(self.options, "rank")):
            parts = self.room.split("+")
            rank = sum(int(part) if part.isdigit() else getattr(self.options, part) for part in parts)
            check_rank(rank, linears, self.room)
        return linears

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        linears = self.check(model)

        def make(name: str) -> AdaptedLinear:
            return self.layer(linears[name], name, context.seed)

        layers = for_each_layer(linears, make) if self.decomposes else {name: make(name) for name in linears}
        replace(model, layers)
        return self.adapted(model, layers, context)

    def layer(self, linear: nn.Linear, name: str, seed: int) -> AdaptedLinear:
        """What takes the place of one layer; ``seed`` and ``name`` decide its random draws."""
        raise NotImplementedError

    def adapted(self, model: nn.Module, layers: Mapping[str, Any], context: AdapterContext) -> Adapted:
        """What came of it: all that the layers have added learns by one rule."""
        o = self.options
        return Adapted(uniform_rules(model, o.lr_mult, o.weight_decay, o.kind))


def for_each_layer(names: Iterable[str], make: Callable[[str], T]) -> dict[str, T]:
    """What ``make`` gives for each layer, in a thread pool, for the SVDs.

    Raises:
        ValueError: what ``make`` raises, with the layer's name.
    """

    def one(name: str) -> T:
        try:
            return make(name)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    names = list(names)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(available_cores()) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))
