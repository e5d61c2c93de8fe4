"""When a run is to stop: a signal to any of its processes says so, or the driver of its sweep."""

from __future__ import annotations

import contextlib
import time

import torch
from lightning_fabric import Fabric

from recyclelora.runs.unit import Unit
from recyclelora.system.errors import Interrupted, Paused, Pruned, UserError
from recyclelora.system.stopping import StopRequest

ASK_UNIT_EVERY = 1.0
"""Seconds between two looks at what the driver of a sweep wants."""
WORD = 2.0
"""Seconds for which a run that is to pause waits for the driver to let it go on at once: it looks twice a second."""


class RunStop(StopRequest):
    """What a signal or the driver of a sweep has asked of this process, and what all processes agree on."""

    def __init__(self, fabric: Fabric, unit: Unit | None) -> None:
        super().__init__()
        self._fabric = fabric
        self._unit = unit
        self._looked = 0.0
        self._until = self._told(None)
        self._paused: Paused | None = None

    def _told(self, before: int | None) -> int | None:
        """The step at which the first process finds that this run is to pause; as before where nobody can say."""
        until = before
        if self._unit is not None and self._fabric.is_global_zero:
            with contextlib.suppress(UserError):
                until = self._unit.pauses_at
        return self._fabric.broadcast(until) if self._fabric.world_size > 1 else until

    def pauses(self, step: int) -> bool:
        """Whether the run is to pause after ``step``."""
        return step == self._until

    def pause(self, step: int, value: float | None) -> bool:
        """Pause after ``step``, where the objective is ``value``; False where the driver lets the run go on."""
        until, deadline = self._until, time.monotonic() + WORD
        while until == step and time.monotonic() < deadline and not self.agreed(self.requested()):
            time.sleep(0.1)
            until = self._told(until)
        self._until = until
        self._paused = Paused(step, value) if until == step else None
        return self._paused is not None

    def asked(self, *, at_once: bool = False) -> bool:
        """Whether this process is to stop; the sweep's file is looked at only now and then, unless ``at_once``."""
        if self.requested():
            return True
        if self._unit is None or (not at_once and time.monotonic() - self._looked < ASK_UNIT_EVERY):
            return False
        self._looked = time.monotonic()
        return self._unit.stop_reason() is not None

    def agreed(self, mine: bool) -> bool:
        """Whether any process says so."""
        if self._fabric.world_size == 1:
            return mine
        votes = self._fabric.all_reduce(torch.tensor(float(mine), device=self._fabric.device), reduce_op="sum")
        return bool(torch.as_tensor(votes) > 0)

    def as_error(self, step: int, *, fresh: bool) -> Interrupted:
        """What ends a run that was stopped after ``step`` and has saved everything."""
        if self._paused is not None:
            return self._paused
        if self._unit is not None and self._unit.stop_reason() == "pruned":
            return Pruned(f"pruned after step {step}")
        command = "the same command without fresh=true" if fresh else "the same command"
        return self.interrupted(f" after step {step}; {command} goes on from there")
