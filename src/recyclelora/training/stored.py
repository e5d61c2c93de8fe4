"""The tensors of a checkpoint: the same whether each process has the whole model or only its part of it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.optim import Optimizer

from recyclelora.config.build import Model
from recyclelora.models.state import load_trainable_state, trainable_state, whole_state
from recyclelora.training.average import WeightAverage
from recyclelora.training.optimizer import load_optimizer_state, optimizer_state

Tensors = dict[str, dict[str, Tensor]]


def stored_tensors(
    model: Model, optimizer: Optimizer, average: WeightAverage | None, initial: dict[str, Tensor]
) -> Tensors:
    """All that training goes on from, by set and name, whole in the first process; all processes must ask."""
    found = {"trained": trainable_state(model.segmenter), "optimizer": optimizer_state(optimizer)}
    if model.training_state is not None:
        found["adapter"] = model.training_state.state_dict()
    if average is not None:
        found["average"] = average.state
    return {name: whole_state(tensors) for name, tensors in found.items()} | {"initial": initial}


def restore_tensors(
    tensors: Mapping[str, dict[str, Tensor]], model: Model, optimizer: Optimizer, average: WeightAverage | None
) -> None:
    """Put back what :func:`stored_tensors` gave."""
    load_trainable_state(model.segmenter, tensors["trained"])
    load_optimizer_state(optimizer, tensors["optimizer"])
    if model.training_state is not None:
        model.training_state.load_state_dict(tensors["adapter"])
    if average is not None:  # behind the adapter, whose promises hold for it
        average.load(tensors["average"])
