"""Exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from recyclelora.models.state import load_trainable_state, trainable_state
from recyclelora.system.distributed import placed


class WeightAverage:
    """``average <- (1 - momentum) average + momentum weight`` after every step, in float32; buffers are copied.

    Begins at the weights it is made from, on the device where they are then, or with ``start`` at those of that step.

    Args:
        segmenter: whose trainable state is averaged.
        momentum: of the new weights, in (0, 1]; SoMA uses 2e-4.
        start: up to so many finished steps the average is a copy of the weights; SoMA uses 12,000 and 20,000.
        constrain: called with the average by name after each change, to impose in place what the method of adapting
            promises of its weights and a mean of them would not keep.
    """

    def __init__(
        self,
        segmenter: nn.Module,
        momentum: float,
        start: int = 0,
        constrain: Callable[[Mapping[str, Tensor]], None] | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.momentum = momentum
        self.start = start
        self._constrain = constrain or (lambda state: None)
        self._own = trainable_state(segmenter)  # on the model's memory: found once, not at every step
        self._parameters = {name for name, _ in segmenter.named_parameters()}
        self.state = {name: value.clone() for name, value in self._own.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` finished steps."""
        for name, value in self._own.items():
            if name in self._parameters and step > self.start:
                self.state[name].lerp_(value, self.momentum)
            else:
                self.state[name].copy_(value)
        self._constrain(self.state)

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a stored average."""
        for name, value in self.state.items():
            value.copy_(placed(state[name], value))
        self._constrain(self.state)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model hold the average for a while, then its own weights again."""
        own = {name: value.clone() for name, value in self._own.items()}
        load_trainable_state(self.segmenter, self.state)
        try:
            yield
        finally:
            load_trainable_state(self.segmenter, own)
