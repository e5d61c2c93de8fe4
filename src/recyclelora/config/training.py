"""Options of the groups ``trainer``, ``optimizer`` and ``tracking``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional
from urllib.parse import urlsplit

from recyclelora.system.checks import Problem, above_zero, added, at_least, one_of
from recyclelora.system.redaction import redacted

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "auto")


ACCELERATORS = ("auto", "cpu", "cuda", "mps")


@dataclass
class TrainerConfig:
    """How long, on what, and how often. Steps are optimizer steps; ``batch_size`` is over all devices together.

    ``accumulate`` cuts a batch into that many parts, one after the other; ``ema`` is the momentum of averaged weights,
    which are then the ones that are scored and kept, and ``ema_start`` the step up to which they are the weights
    themselves; ``checkpointing`` recomputes the backbone's activations in the
    backward pass; ``compile`` hands the backbone to torch.compile; ``num_figures`` images of each set are shown at the
    end, and 0 draws no pictures at all. With several devices a process that waits longer than ``stall_timeout`` seconds
    for the others gives up; that must outlast the start, and drawing by the first alone.
    """

    max_steps: int = 40_000
    batch_size: int = 4
    num_workers: int = 4
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    stall_timeout: int = 1800
    precision: str = "32-true"
    accumulate: int = 1
    grad_clip: Optional[float] = None
    ema: Optional[float] = None
    ema_start: int = added(0)
    checkpointing: bool = False
    compile: bool = False
    log_every: int = 50
    eval_every: int = 4_000
    eval_batch_size: int = 1
    eval_window_batch: int = 4
    eval_images: Optional[int] = None
    checkpoint_every: Optional[int] = None
    num_figures: int = 3

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        for name in (
            "max_steps", "batch_size", "devices", "num_nodes", "accumulate", "log_every", "eval_every",
            "eval_batch_size", "eval_window_batch", "stall_timeout",
        ):  # fmt: skip
            yield from at_least(name, getattr(self, name), 1)
        for name in ("eval_images", "checkpoint_every"):
            if getattr(self, name) is not None:
                yield from at_least(name, getattr(self, name), 1)
        yield from at_least("num_workers", self.num_workers, 0)
        yield from at_least("num_figures", self.num_figures, 0)
        yield from one_of("precision", self.precision, PRECISIONS)
        yield from one_of("accelerator", self.accelerator, ACCELERATORS)
        if self.grad_clip is not None:
            yield from above_zero("grad_clip", self.grad_clip)
        if self.ema is not None and not 0 < self.ema <= 1:
            yield "ema", "must lie in (0, 1]: the weight of each new step, such as 2e-4"
        yield from at_least("ema_start", self.ema_start, 0)
        if self.ema is not None and self.ema_start >= self.max_steps > 0:
            yield (
                "ema_start",
                f"must be below max_steps, {self.max_steps}: nothing would be averaged (or trainer.ema=null)",
            )
        parts = self.devices * self.num_nodes * self.accumulate
        if min(self.devices, self.num_nodes, self.accumulate) > 0 and self.batch_size % parts:
            yield "batch_size", f"must divide evenly over {parts} parts (devices x num_nodes x accumulate)"


@dataclass
class OptimizerConfig:
    """AdamW, a learning-rate schedule after a warm-up, and cosine annealing of the weight decay.

    ``lr_end`` is the fraction of the learning rate that the schedule ends at, ``warmup_ratio`` the one it starts from.
    With ``reach_ends`` the last step has ``lr_end`` itself, and the last one of the warm-up the full rate, as mmengine
    counts; without, they would be those of the step after.
    """

    lr: float = 1e-4
    weight_decay: float = 0.05
    weight_decay_end: Optional[float] = 1e-5
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    schedule: str = "poly"
    power: float = 0.9
    lr_end: float = 0.0
    warmup: str = "linear"
    warmup_steps: int = 0
    warmup_ratio: float = 1e-6
    reach_ends: bool = added(False)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr", self.lr)
        yield from above_zero("eps", self.eps)
        yield from at_least("weight_decay", self.weight_decay, 0)
        yield from at_least("warmup_steps", self.warmup_steps, 0)
        yield from at_least("power", self.power, 0)
        yield from one_of("schedule", self.schedule, ("poly", "cosine", "constant"))
        yield from one_of("warmup", self.warmup, ("linear", "exponential", "constant"))
        if not 0 <= self.lr_end <= 1:
            yield "lr_end", "must lie in [0, 1]"
        if not 0 < self.warmup_ratio <= 1:
            yield "warmup_ratio", "must lie in (0, 1]"
        if self.weight_decay_end is not None:
            yield from at_least("weight_decay_end", self.weight_decay_end, 0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield "betas", "must be two numbers in [0, 1)"


ELSEWHERE = "and is stored with the run: use the environment variable MLFLOW_TRACKING_URI"
"""What to do with an address that holds a secret."""


@dataclass
class TrackingConfig:
    """Whether MLflow mirrors the run; ``uri`` null means MLFLOW_TRACKING_URI, else SQLite in the outputs folder.

    ``tensorboard`` and ``wandb`` do the same for those who live there; each needs the extra of its name.
    ``model`` uploads the adapter of a finished run (of a sweep: of its best trial) as a model that MLflow can load.
    """

    mlflow: bool = True
    experiment: Optional[str] = None
    uri: Optional[str] = None
    tensorboard: bool = False
    wandb: bool = False
    model: bool = True

    def check(self) -> Iterator[Problem]:
        """Yield every bad value; a password here would be stored with the run."""
        if self._holds_password():
            yield "uri", f"holds a password, {ELSEWHERE}"

    def check_new(self) -> Iterator[Problem]:
        """Yield what a new run is refused for, but runs of earlier versions may hold."""
        if self.uri is not None and not self._holds_password() and redacted(self.uri) != self.uri:
            yield "uri", f"holds a password or token, {ELSEWHERE}"

    def _holds_password(self) -> bool:
        try:
            return self.uri is not None and urlsplit(self.uri).password is not None
        except ValueError:  # no address at all
            return False
