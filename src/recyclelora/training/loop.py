"""The training loop: batch -> loss -> step -> log, evaluate, checkpoint when due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from recyclelora.system.devices import copied, seed_step
from recyclelora.system.distributed import mean_over_processes, whole
from recyclelora.system.errors import UserError
from recyclelora.training.schedule import Schedule


@dataclass(frozen=True)
class Cadence:
    """Every how many steps something happens; the last step always counts."""

    max_steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int

    def due(self, step: int, every: int) -> bool:
        """Whether something is due after ``step`` finished steps."""
        return step % every == 0 or step == self.max_steps


class Hooks(Protocol):
    """What happens around the steps."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record values after ``step`` finished steps."""

    def evaluate(self, step: int) -> None:
        """Score the model."""

    def save(self, step: int) -> None:
        """Write a checkpoint."""

    def pauses(self, step: int) -> bool:
        """Whether training is to pause after ``step`` finished steps, once that is saved and scored."""

    def halt(self, step: int) -> bool:
        """Score what a pause needs, and find out whether training does stop here."""

    def stop_requested(self) -> bool:
        """Whether to save and stop at this step boundary."""


def fit(
    fabric: Fabric,
    model: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    batches: Iterable[tuple[Tensor, Tensor]],
    cadence: Cadence,
    hooks: Hooks,
    *,
    seed: int,
    start: int = 0,
    accumulate: int = 1,
    counts: Callable[[Tensor], Tensor] | None = None,
    grad_clip: float | None = None,
    before_step: Callable[[int], None] = lambda step: None,
    after_step: Callable[[int], None] = lambda step: None,
) -> int:
    """Train from ``start`` finished steps to ``cadence.max_steps``.

    Every batch is cut into ``accumulate`` equal parts whose gradients are averaged. What losses are divided by depends
    on the labels: ``counts`` gives it for those of one part, and the model takes the mean over all as third argument.
    ``before_step`` and ``after_step`` are called with the number of finished steps, the latter while the gradients of
    the last are still there.

    Returns:
        the number of finished steps, smaller than ``max_steps`` when a stop was requested, or where training pauses; a
        checkpoint is then saved.

    Raises:
        UserError: a loss or gradient is not finite; nothing was changed by that step.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    meter, step = _Meter(), start
    for images, labels in copied(batches, fabric.device):
        meter.data_arrived()
        schedule.apply(optimizer, step)
        seed_step(seed, step, fabric.global_rank)
        before_step(step)
        losses = _backward(fabric, model, images, labels, accumulate, counts)
        norm = _finite_norm(fabric, optimizer, parameters, losses, step)
        if grad_clip is not None and norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, grad_clip, norm)
        optimizer.step()  # float16's scaler leaves a step out whose gradients overflowed, and lowers its scale
        step += 1
        if norm is None:  # they overflowed: nobody may learn from them
            optimizer.zero_grad(set_to_none=False)
        after_step(step)
        optimizer.zero_grad()
        meter.step_done(losses if norm is None else {**losses, "grad_norm": norm})
        if cadence.due(step, cadence.log_every):
            hooks.log(step, {**_of_all(fabric, meter.averages()), **_rates(optimizer)})
        stop, scored, pause = hooks.stop_requested(), cadence.due(step, cadence.eval_every), hooks.pauses(step)
        # before each evaluation too: it takes long, and the best one must be there to go back to
        if cadence.due(step, cadence.checkpoint_every) or scored or stop or pause:
            hooks.save(step)
        if scored and not stop:
            hooks.evaluate(step)  # where it is cut short, the run that goes on begins with it
        if stop or (pause and hooks.halt(step)):
            break
        meter.pause()
    return step


def _backward(
    fabric: Fabric,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    accumulate: int,
    counts: Callable[[Tensor], Tensor] | None,
) -> dict[str, Tensor]:
    """Gradients of the mean loss over the parts of a batch; returns the mean of every named loss."""
    parts = list(zip(images.chunk(accumulate), labels.chunk(accumulate), strict=True))
    norm: tuple[Tensor, ...] = ()
    if len(parts) > 1 and counts is not None:
        norm = (mean_over_processes(torch.stack([counts(truth) for _, truth in parts]).mean(0)),)
    means: dict[str, Tensor] = {}
    for index, (part, truth) in enumerate(parts):
        with fabric.no_backward_sync(model, enabled=index < len(parts) - 1):  # type: ignore[arg-type]
            losses: dict[str, Tensor] = model(part, truth, *norm)
            fabric.backward(torch.stack(list(losses.values())).sum() / len(parts))
        for name, value in losses.items():
            means[name] = means.get(name, 0.0) + value.detach() / len(parts)
    return means


def _rates(optimizer: Optimizer) -> dict[str, float]:
    """The first group's learning rate, and the largest weight decay."""
    groups = optimizer.param_groups
    return {"lr": groups[0]["lr"], "weight_decay": max(group["weight_decay"] for group in groups)}


def _of_all(fabric: Fabric, values: dict[str, float]) -> dict[str, float]:
    """Logged values with the losses of all processes: each has the share of its own images, their mean is the whole."""
    names = [name for name in values if name.startswith("loss")]
    if fabric.world_size == 1 or not names:
        return values
    shares = torch.tensor([values[name] for name in names], device=fabric.device)
    return values | dict(zip(names, mean_over_processes(shares).tolist(), strict=True))


def _finite_norm(
    fabric: Fabric, optimizer: Optimizer, parameters: list[nn.Parameter], losses: dict[str, Tensor], step: int
) -> Tensor | None:
    """The norm of the gradients, in float16 unscaled first; None where float16's scaled gradients overflowed.

    Raises:
        UserError: the loss or a gradient is not finite.
    """
    precision = fabric.strategy.precision
    precision.unscale_gradients(getattr(optimizer, "optimizer", optimizer))
    norm = whole(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    loss = torch.stack(list(losses.values())).sum()
    if torch.isfinite(loss + norm):  # waits for the device: the only time in a step, beside a matching
        return norm
    scaler = getattr(precision, "scaler", None)
    if scaler is not None and torch.isfinite(loss) and scaler.get_scale() >= 1:
        return None
    raise _not_finite(step, loss, optimizer)


def _not_finite(step: int, loss: Tensor, optimizer: Optimizer) -> UserError:
    """Name the step, the learning rate and the first bad parameter."""
    lr, value = optimizer.param_groups[0]["lr"], float(loss)
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if parameter.grad is not None and not torch.isfinite(whole(parameter.grad)).all():
                return UserError(
                    f"step {step}: the loss is {value:g}, the gradient of {name} is not finite at lr {lr:.3g}; "
                    "the last checkpoint is kept: lower optimizer.lr or set trainer.grad_clip"
                )
    return UserError(f"step {step}: the loss is {value:g} at lr {lr:.3g}; the last checkpoint is kept")


class _Meter:
    """Averages between two log points: losses, seconds a step, seconds and share of them spent waiting for data.

    Only the time in which the next batch is asked for counts as waiting, not what hooks take after a step.
    """

    def __init__(self) -> None:
        self._mark = time.perf_counter()
        self._reset()

    def _reset(self) -> None:
        self.steps, self.waiting, self.working = 0, 0.0, 0.0
        self.values: dict[str, list[Tensor]] = {}

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self._mark = now - self._mark, now
        return lap

    def data_arrived(self) -> None:
        self.waiting += self._lap()

    def step_done(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value.flatten())  # stays there: a number would be waited for
        self.working += self._lap()
        self.steps += 1

    def pause(self) -> None:
        """Leave the time since the last step out."""
        self._lap()

    def averages(self) -> dict[str, float]:
        """Averages since the last call."""
        values = {name: sum(torch.cat(known).cpu().tolist()) / len(known) for name, known in self.values.items()}
        total = self.waiting + self.working
        values |= {
            "seconds_per_step": total / self.steps,
            "data_wait_seconds": self.waiting / self.steps,
            "data_wait_share": self.waiting / total,
        }
        self._reset()
        return values
