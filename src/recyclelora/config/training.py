"""Options of the groups ``trainer``, ``optimizer`` and ``tracking``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional
from urllib.parse import urlsplit

from recyclelora.system.checks import Problem, above_zero, added, at_least, checked, nearest, one_of, within
from recyclelora.system.plugins import plugin_names
from recyclelora.system.redaction import redacted

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "auto")


COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""Those of torch.compile."""

ACCELERATORS = ("auto", "cpu", "cuda", "mps")

STRATEGIES = ("ddp", "fsdp")
"""How several processes train one model."""

POINTERS = ("last", "best_source", "best_target")
"""Which of a run's checkpoints may be asked for."""


@dataclass
class TrainerConfig:
    """How long, on what, and how often."""

    max_steps: int = checked(40_000, at_least, 1)
    """optimizer steps, or the most of them where ``epochs`` says how many"""
    epochs: Optional[float] = added(None, above_zero)
    """passes over the sources; null takes ``max_steps``"""
    min_steps: int = added(1, at_least, 1)
    """the least of them that ``epochs`` makes"""
    batch_size: int = checked(4, at_least, 1)
    """over all devices together"""
    num_workers: int = checked(4, at_least, 0)
    """processes that read training images, of each device"""
    accelerator: str = checked("auto", one_of, ACCELERATORS)
    """``auto`` takes what is there"""
    devices: int = checked(1, at_least, 1)
    """of each node"""
    num_nodes: int = checked(1, at_least, 1)
    """machines"""
    strategy: str = added("ddp", one_of, STRATEGIES)
    """of several processes: each has the whole model, or with ``fsdp`` its part of every block; the same run"""
    stall_timeout: int = checked(1800, at_least, 1)
    """seconds after which a process gives up on the others: longer than the start, and than drawing by the first"""
    precision: str = checked("32-true", one_of, PRECISIONS)
    """of the computation; ``auto`` takes bf16 where the GPU has it"""
    accumulate: int = checked(1, at_least, 1)
    """so many parts of a batch, one after the other"""
    grad_clip: Optional[float] = checked(None, above_zero)
    """largest norm of the gradient; null leaves it as it is"""
    ema: Optional[float] = None
    """momentum of averaged weights, which are then scored and kept; null averages none"""
    ema_start: int = added(0, at_least, 0)
    """step up to which averaged weights are the weights themselves"""
    checkpointing: bool = False
    """whether the backward pass recomputes the backbone's activations"""
    compile: bool = False
    """whether torch.compile gets the backbone"""
    compile_mode: Optional[str] = added(None, one_of, COMPILE_MODES)
    """torch.compile's: ``reduce-overhead`` replays a GPU's kernels as one CUDA graph; null takes its default"""
    tf32: bool = added(False)
    """whether GPUs may compute float32 products with 10 bits of mantissa: faster, less exact"""
    deterministic: bool = added(False)
    """whether a GPU uses only kernels that give the same bits again, at some cost; see docs/faq.md"""
    log_every: int = checked(50, at_least, 1)
    """steps between two points of the training curves"""
    eval_every: int = checked(4_000, at_least, 1)
    """steps between two evaluations of all sets"""
    eval_batch_size: int = checked(1, at_least, 1)
    """images at once in evaluations"""
    eval_window_batch: int = checked(4, at_least, 1)
    """windows at once in evaluations"""
    eval_images: Optional[int] = checked(None, at_least, 1)
    """so many images of each set, drawn once, in evaluations during training; null scores all"""
    checkpoint_every: Optional[int] = checked(None, at_least, 1)
    """steps between two checkpoints, beside those of evaluations; null: only those"""
    num_figures: int = checked(3, at_least, 0)
    """images of each set that are shown at the end; 0 draws no pictures at all"""

    def check(self) -> Iterator[Problem]:
        if self.epochs is not None and self.min_steps > self.max_steps:
            below = f"must not be above max_steps, {self.max_steps}"
            yield "min_steps", f"{below}: lower it, or train max_steps whatever the images: trainer.epochs=null"
        if self.compile_mode is not None and not self.compile:
            yield "compile_mode", "says how to compile: add trainer.compile=true"
        if self.ema is not None and not 0 < self.ema <= 1:
            yield "ema", "must lie in (0, 1]: the weight of each new step, such as 2e-4"
        if self.ema is not None and self.ema_start >= self.max_steps > 0:
            yield (
                "ema_start",
                f"must be below max_steps, {self.max_steps}: nothing would be averaged (or trainer.ema=null)",
            )
        if self.strategy == "fsdp" and self.devices == self.num_nodes == 1:
            yield "strategy", "needs several processes to share the model: give trainer.devices or trainer.num_nodes"
        if self.strategy == "fsdp" and self.precision == "16-mixed":
            yield "strategy", "does not scale the gradients of 16-mixed: use trainer.precision=bf16-mixed"
        parts = self.devices * self.num_nodes * self.accumulate
        if min(self.devices, self.num_nodes, self.accumulate) > 0 and self.batch_size % parts:
            yield "batch_size", f"must divide evenly over {parts} parts (devices x num_nodes x accumulate)"

    def steps(self, images: int) -> int:
        """How many steps a training on so many images takes."""
        if self.epochs is None:
            return self.max_steps
        return min(max(round(self.epochs * images / self.batch_size), self.min_steps), self.max_steps)


@dataclass
class OptimizerConfig:
    """AdamW, a learning-rate schedule after a warm-up, and cosine annealing of the weight decay."""

    lr: float = checked(1e-4, above_zero)
    """learning rate that the schedule starts from"""
    weight_decay: float = checked(0.05, at_least, 0)
    """at the start"""
    weight_decay_end: Optional[float] = checked(1e-5, at_least, 0)
    """at the end; null keeps it as it is"""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """AdamW's"""
    eps: float = checked(1e-8, above_zero)
    """AdamW's"""
    schedule: str = checked("poly", one_of, ("poly", "cosine", "constant"))
    """of the learning rate"""
    power: float = checked(0.9, at_least, 0)
    """of the schedule ``poly``"""
    lr_end: float = checked(0.0, within, "[0, 1]")
    """share of the learning rate that the schedule ends at"""
    warmup: str = checked("linear", one_of, ("linear", "exponential", "constant"))
    """how the learning rate rises"""
    warmup_steps: int = checked(0, at_least, 0)
    """before the schedule"""
    warmup_ratio: float = checked(1e-6, within, "(0, 1]")
    """share of the learning rate that the warm-up starts from"""
    reach_ends: bool = added(False)
    """whether the last steps of schedule and warm-up have ``lr_end`` and the full rate themselves, as mmengine counts;
    else the step after would"""
    layer_decay: float = added(1.0, within, "(0, 1]")
    """factor on the rates in the backbone for each block from the last one to the first, which is the embeddings' too;
    1 has one rate for all"""
    backbone_delay: int = added(0, at_least, 0)
    """first steps, in which only the decoder learns"""
    backbone_warmup: Optional[int] = added(None, at_least, 0)
    """steps after the delay in which the rates of the backbone rise; null takes ``warmup_steps``"""

    def check(self) -> Iterator[Problem]:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield "betas", "must be two numbers in [0, 1)"


ELSEWHERE = "and is stored with the run: use the environment variable MLFLOW_TRACKING_URI"
"""What to do with an address that holds a secret."""

TRACKER_GROUP = "recyclelora.trackers"
"""Entry points of this group: name -> function of a run directory, see :class:`recyclelora.tracking.feed.Tracker`."""


@dataclass
class TrackingConfig:
    """What mirrors the run, beside its own files."""

    mlflow: bool = True
    """whether MLflow does"""
    experiment: Optional[str] = None
    """its experiment; null takes the name of the sweep or of the data"""
    uri: Optional[str] = None
    """of MLflow; null means MLFLOW_TRACKING_URI, else SQLite in the outputs folder"""
    tensorboard: bool = False
    """whether TensorBoard does; needs the extra of its name"""
    wandb: bool = False
    """whether Weights & Biases does; needs the extra of its name"""
    model: bool = True
    """whether the adapter of a finished run (of a sweep: of its best trial) is uploaded as a model that MLflow can
    load"""
    trackers: list[str] = added(list)
    """further ones, of installed packages, by their names"""

    def check(self) -> Iterator[Problem]:
        if self._holds_password():
            yield "uri", f"holds a password, {ELSEWHERE}"  # it would be stored with the run

    def check_new(self) -> Iterator[Problem]:
        """What a new run is refused for, but runs of earlier versions may hold."""
        known = plugin_names(TRACKER_GROUP)
        for name in self.trackers:
            if name not in known:
                yield "trackers", f"no installed package brings {name}{nearest(name, known)}"
        if self.uri is not None and not self._holds_password() and redacted(self.uri) != self.uri:
            yield "uri", f"holds a password or token, {ELSEWHERE}"

    def _holds_password(self) -> bool:
        try:
            return self.uri is not None and urlsplit(self.uri).password is not None
        except ValueError:  # no address at all
            return False
