"""The training session of a run: model, optimizer and what happens around the steps."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from recyclelora.config.build import Model
from recyclelora.config.run import Config
from recyclelora.data.build import Datasets, build_augmentation, build_extras, build_rare_classes
from recyclelora.data.datasets import Dataset, seeded_subset
from recyclelora.data.identity import content_digest, state_on_disk
from recyclelora.data.loaders import Batch, StepSampler, TrainStream, train_loader
from recyclelora.data.workers import Loader
from recyclelora.evaluation.evaluator import Evaluator
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.metrics import ConfusionMatrix
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.evaluation.scores import POINTERS, ScoreHistory, Scores, best_step, incomplete, objective
from recyclelora.models.state import load_trainable_state, trainable_state
from recyclelora.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    point,
    pointed,
    prune,
    save_checkpoint,
    tensors_digest,
)
from recyclelora.runs.directory import METRICS, RunDirectory
from recyclelora.runs.identity import evaluation_identity
from recyclelora.runs.mailbox import Unit
from recyclelora.runs.metrics_log import EVALUATION_SHARE, MetricsLog, total_loss
from recyclelora.runs.record import code_digest
from recyclelora.system.distributed import gathered
from recyclelora.system.errors import BrokenFile, UserError
from recyclelora.system.hardware import peak_memory_mb
from recyclelora.system.progress import Reporter, Update
from recyclelora.system.stopping import StopRequest
from recyclelora.training.average import WeightAverage
from recyclelora.training.loop import Cadence, fit
from recyclelora.training.optimizer import adamw, load_optimizer_state, optimizer_state, parameter_groups
from recyclelora.training.pictures import Pictures
from recyclelora.training.schedule import build_schedule

KEPT_CHECKPOINTS = 3
EVAL_SUBSET_SEED = 0
"""Intermediate evaluations of every run look at the same images."""
ASK_UNIT_EVERY = 1.0
"""Seconds between two looks at what the driver of a sweep wants."""


@dataclass
class Session:
    """Trains one model; implements the hooks of :func:`recyclelora.training.loop.fit`."""

    config: Config
    fabric: Fabric
    model: Model
    datasets: Datasets
    evaluator: Evaluator
    directory: RunDirectory
    reporter: Reporter
    step: int = 0
    seconds: float = 0.0
    """spent in training and evaluation by earlier launches"""
    matrices: dict[int, dict[str, ConfusionMatrix]] = field(default_factory=dict)
    """step -> set -> what this launch counted last"""
    unreadable: dict[str, list[BrokenFile]] = field(default_factory=dict)
    """set -> what could not be read when it was scored last"""

    def __post_init__(self) -> None:
        c = self.config
        groups = parameter_groups(
            self.model.segmenter.named_parameters(), self.model.rules,
            lr=c.optimizer.lr, weight_decay=c.optimizer.weight_decay,
        )  # fmt: skip
        optimizer = adamw(groups, betas=(c.optimizer.betas[0], c.optimizer.betas[1]), eps=c.optimizer.eps)
        self._prepare_backbone()
        self.wrapped, self.optimizer = self.fabric.setup(self.model.segmenter, optimizer)
        self.average = None
        if c.trainer.ema is not None:
            self.average = WeightAverage(self.segmenter, c.trainer.ema, c.trainer.ema_start, self.model.constrain)
        self.initial = {name: tensor.cpu() for name, tensor in self.model.initial().items()}
        self.metrics = MetricsLog(self.directory.path / METRICS)
        self.history = ScoreHistory(self.directory.scores)
        self.pictures = Pictures(c, self.directory, self.datasets.scored, self.evaluator, self.segmenter)
        self.stop = StopRequest()
        self.unit = Unit.current()
        self._update: Update = lambda count, status="", total=None: None
        self.clock: Callable[[], float] = lambda: 0.0
        self._evaluating = 0.0
        self._asked = 0.0
        self._saved = 0

    def _prepare_backbone(self) -> None:
        backbone, t = self.segmenter.backbone, self.config.trainer
        if t.checkpointing:
            backbone.model.set_grad_checkpointing(True)
        if t.compile:
            backbone.compile()

    def scored_weights(self) -> AbstractContextManager[None]:
        """Let the model hold the weights that are scored and kept: the averaged ones where there is an average."""
        return nullcontext() if self.average is None else self.average.in_place()

    @property
    def segmenter(self) -> Any:
        """The model without its wrapper for devices and precision."""
        return self.model.segmenter

    # --- resuming -----------------------------------------------------------------------------------------------------

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        load_trainable_state(self.segmenter, checkpoint.tensors["trained"])
        load_optimizer_state(self.optimizer.optimizer, checkpoint.tensors["optimizer"])
        self.fabric.strategy.precision.load_state_dict(checkpoint.state["precision"])
        if self.model.training_state is not None:
            self.model.training_state.load_state_dict(checkpoint.tensors["adapter"])
        if self.average is not None:  # behind the adapter, whose promises hold for it
            self.average.load(checkpoint.tensors["average"])
        self.step = self._saved = checkpoint.step
        self.history.restore(checkpoint.state["history"], checkpoint.step)
        self.seconds = float(checkpoint.state["seconds"])
        if self.fabric.is_global_zero:
            self._point(self.step)  # a kill between a checkpoint and its pointers leaves those of the checkpoint before

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(self, clock: Callable[[], float]) -> bool:
        """Train to the end; False when a stop was requested and the run saved itself before the end.

        ``clock`` tells the seconds since this launch began.
        """
        c, t = self.config, self.config.trainer
        self.clock = clock
        stream = self._stream()
        sampler = StepSampler(t.batch_size, self.step, t.max_steps, self.fabric.global_rank, self.fabric.world_size)
        loader = train_loader(stream, sampler, num_workers=t.num_workers, pin_memory=self.fabric.device.type == "cuda")
        schedule = build_schedule(c)
        if self.step == 0 and self.fabric.is_global_zero:
            self.pictures.start(stream)
        self.segmenter.train()
        with self.stop:
            if self.unscored:
                self.evaluate(self.step)
            with self.reporter.bar("training", t.max_steps, self.step, terse=True) as self._update:
                fit(
                    self.fabric, self.wrapped, self.optimizer, schedule, self._batches(loader), self._cadence, self,
                    seed=c.seed, start=self.step, accumulate=t.accumulate, counts=self.segmenter.counts,
                    grad_clip=t.grad_clip, after_step=self._after_step,
                )  # fmt: skip
        return self.step == t.max_steps and not self._any(self.stop.requested())

    @property
    def _cadence(self) -> Cadence:
        t = self.config.trainer
        return Cadence(t.max_steps, t.log_every, t.eval_every, t.checkpoint_every or t.eval_every)

    @property
    def unscored(self) -> bool:
        """Whether the evaluation that is due after the steps so far is still to be done."""
        due = self.step > 0 and self._cadence.due(self.step, self.config.trainer.eval_every)
        return due and self.step not in self.history

    def _batches(self, loader: Loader[Batch]) -> Iterator[Batch]:
        """The loader's batches; what has been learnt is saved when it cannot go on."""
        try:
            yield from loader
        except UserError:
            if self.step > self._saved and self.fabric.world_size == 1:  # several processes do not all know of it
                self.save(self.step)
            raise

    def _after_step(self, step: int) -> None:
        self.step = step
        self._update(1)
        if self.model.after_step is not None:
            self.model.after_step(step)
        if self.average is not None:
            self.average.update(step)

    def _stream(self) -> TrainStream:
        """The augmented samples of all sources; the first process counts rare classes, the others read its counts."""
        c, sources = self.config, self.datasets.sources
        if not self.fabric.is_global_zero:
            self.fabric.barrier()
        rare = build_rare_classes(
            c.data, sources, c.cache, lambda images: self.reporter.bar("counting classes (once)", images)
        )
        if self.fabric.is_global_zero:
            self.fabric.barrier()
        weights = [source.weight for source in c.data.sources]
        return TrainStream(sources, weights, build_augmentation(c.data), c.seed, build_extras(c.data), rare)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record a point and tell it."""
        if not self.fabric.is_global_zero:
            return
        self.metrics.append(step, values)
        loss = total_loss(values) or 0.0
        pace, wait = values["seconds_per_step"], values["data_wait_share"]
        if self.unit is not None:
            self.unit.progress(step, self.config.trainer.max_steps, loss)
        memory = peak_memory_mb(self.fabric.device) / 1024
        self._update(0, f"loss {loss:.3f}  {pace:.2f} s/step  data wait {wait:.0%}  {memory:.1f} GiB")

    def evaluate(self, step: int) -> None:
        """Score source validation and targets, on a seeded subset where ``trainer.eval_images`` says so."""
        began = self.clock()
        size = self.config.trainer.eval_images
        sets = {name: seeded_subset(d, size, EVAL_SUBSET_SEED) for name, d in self.datasets.scored.items()}
        with self.scored_weights():
            contents = _contents(sets)
            scores = self.score(step, sets, contents, whole=size is None)
            self.history.add(scores, self._question(contents) if size is None and not self.unreadable else None)
            if self.fabric.is_global_zero:
                if self.unit is not None:
                    self.unit.report(step, objective(scores, self.config.objective))
                share = (self._evaluating + self.clock() - began) / self.clock()
                self.metrics.append(step, {**scores.points(), EVALUATION_SHARE: share})
                self.history.write()
                self._point(step)
                prune(self.directory.checkpoints, KEPT_CHECKPOINTS, POINTERS)
                self.pictures.evaluation(scores, self.matrices[step])
                self._evaluating += self.clock() - began
                mean, source = scores.target_mean, scores.miou("source_val")
                self.reporter.note(
                    f"step {step}: mIoU targets {_percent(mean)}, source validation {_percent(source)} "
                    f"({share:.0%} of the time so far spent in evaluations)"
                )
                self._forget_counts(step)

    def score(
        self, step: int, sets: dict[str, Dataset], contents: Mapping[str, str], *, whole: bool = False
    ) -> Scores:  # fmt: skip
        """Score the model as it is on every given set, going on where an earlier launch was stopped.

        ``contents`` are what :func:`_contents` found of the sets as the evaluation began.
        Images that cannot be read are told, listed in ``unreadable`` and left out. Of ``whole`` sets the counts of
        every single image are kept for reports.

        Raises:
            Stopped: a signal, or the driver of the sweep, wants this run to stop.
        """
        matrices: dict[str, ConfusionMatrix] = {}
        self.unreadable = {}
        weights = tensors_digest(trainable_state(self.segmenter))
        with self.reporter.bar("evaluating", sum(map(len, sets.values()))) as update:
            for name, dataset in sets.items():
                partial = self._partial(step, name, contents[name], weights)
                images = ImageCounts(self.evaluator.num_classes, dataset.drives()) if whole else None
                mine: list[BrokenFile] = []
                matrices[name] = self.evaluator(
                    self.segmenter, dataset, update, partial, images, mine, self._asked_to_stop
                )
                broken = gathered(mine)
                if broken:
                    self.unreadable[name] = broken
                    self._tell_unreadable(step, name, dataset, broken)
                elif images and self.fabric.is_global_zero:
                    images.save(self.directory.image_counts / str(step) / f"{name}.safetensors")
        self.matrices[step] = matrices
        return Scores.of(step, matrices)

    def _tell_unreadable(self, step: int, name: str, dataset: Dataset, broken: list[BrokenFile]) -> None:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        self.reporter.warn(
            f"{name} after step {step}: scored without {len(broken)} of {len(dataset)} images: {broken[0]}{more}"
        )

    def _question(self, contents: Mapping[str, str], weights: str = "") -> str:
        """What scores of this run depend on, besides its step: counts kept for another question are not used."""
        data = self.config.data
        asked = evaluation_identity(
            weights, contents, asdict(data.protocol), data.classes.names, str(self.fabric.strategy.precision.precision)
        )
        return f"{asked} {code_digest()}"

    def _partial(self, step: int, name: str, content: str, weights: str) -> PartialCounts:
        """Where this process keeps its counts of one set."""
        rank, world_size = self.fabric.global_rank, self.fabric.world_size
        key = f"{self._question({name: content}, weights)} {rank}/{world_size} {self.evaluator.batch_size}"
        return PartialCounts(self.directory.partial_counts / f"{step}-{name}-{rank}.json", key)

    def _forget_counts(self, step: int) -> None:
        """Remove what was kept for an evaluation that has come to its end."""
        for path in self.directory.partial_counts.glob(f"{step}-*.json"):
            path.unlink(missing_ok=True)

    def save(self, step: int) -> None:
        """Write a checkpoint and let ``last`` name it."""
        if self.fabric.is_global_zero:
            tensors = {
                "trained": trainable_state(self.segmenter),
                "optimizer": optimizer_state(self.optimizer.optimizer),
                "initial": self.initial,
            }
            if self.model.training_state is not None:
                tensors["adapter"] = self.model.training_state.state_dict()
            if self.average is not None:
                tensors["average"] = self.average.state
            state = {
                "history": self.history.to_json(),
                "seconds": self.seconds + self.clock(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            with self.stop.saving():
                save_checkpoint(self.directory.checkpoints, Checkpoint(step, tensors, state))
                self._point(step)
                prune(self.directory.checkpoints, KEPT_CHECKPOINTS, POINTERS)
        self._saved = step
        self.fabric.barrier()

    def _point(self, step: int) -> None:
        """Let the pointers name the checkpoint of ``step``, and the best ones by the scores so far."""
        point(self.directory.checkpoints, POINTERS[0], step)
        for pointer in POINTERS[1:]:
            best = best_step(self.history.scores, pointer)
            if best is not None:
                point(self.directory.checkpoints, pointer, best)

    def stop_requested(self) -> bool:
        """Whether any process was asked to stop."""
        return self._any(self._asked_to_stop(at_once=True))

    def _any(self, mine: bool) -> bool:
        """Whether any process says so."""
        if self.fabric.world_size == 1:
            return mine
        votes = self.fabric.all_reduce(torch.tensor(float(mine), device=self.fabric.device), reduce_op="sum")
        return bool(torch.as_tensor(votes) > 0)

    def _asked_to_stop(self, *, at_once: bool = False) -> bool:
        """Whether this process was; the sweep's file is looked at only now and then, unless ``at_once``."""
        if self.stop.received is not None:
            return True
        if self.unit is None or (not at_once and time.monotonic() - self._asked < ASK_UNIT_EVERY):
            return False
        self._asked = time.monotonic()
        return self.unit.stop_reason() is not None

    # --- the end ------------------------------------------------------------------------------------------------------

    def hold_kept_weights(self) -> None:
        """Let the model hold what the run ends with: the averaged weights where there is an average."""
        if self.average is not None:
            load_trainable_state(self.segmenter, self.average.state)

    def final_scores(self) -> dict[str, Scores]:
        """Full scores of ``last``, ``best_source`` and ``best_target``; each step once.

        The model holds the weights of ``last`` before and afterwards.

        Raises:
            Stopped: as :meth:`score`.
            UserError: images cannot be read; all others are scored.
        """
        contents = _contents(self.datasets.scored)
        known = self.history.answering(self._question(contents))
        missing: dict[str, BrokenFile] = {}
        last = {name: p.detach().clone() for name, p in trainable_state(self.segmenter).items()}
        selection: dict[str, Scores] = {}
        for pointer in POINTERS:
            folder = pointed(self.directory.checkpoints, pointer)
            if folder is None:
                continue
            step = int(folder.name.removeprefix("step_"))
            if step not in known:
                self.reporter.note(f"scoring {pointer} (step {step}) on the full sets")
                load_trainable_state(self.segmenter, last if step == self.step else load_checkpoint(folder).model)
                known[step] = self.score(step, self.datasets.scored, contents, whole=True)
                missing |= {str(error): error for errors in self.unreadable.values() for error in errors}
            selection[pointer] = known[step]
        load_trainable_state(self.segmenter, last)
        self.fabric.barrier()
        if missing:
            raise incomplete(list(missing.values()), "the training is finished and kept")
        if self.fabric.is_global_zero:
            shutil.rmtree(self.directory.partial_counts, ignore_errors=True)
            selected = {str(scores.step) for scores in selection.values()}
            for folder in self.directory.image_counts.glob("*"):
                if folder.name not in selected:
                    shutil.rmtree(folder, ignore_errors=True)
        return selection

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Every group the optimizer knows: name, learning rate and weight decay at the start, number of parameters."""
        return [
            {
                "name": group["name"],
                "lr": group["base_lr"],
                "weight_decay": group["base_weight_decay"],
                "parameters": sum(p.numel() for p in group["params"]),
            }
            for group in self.optimizer.param_groups
        ]

    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters of backbone and decoder, and all parameters of the model."""

        def count(module: nn.Module, trainable: bool) -> int:
            return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)

        return {
            "backbone_trainable": count(self.segmenter.backbone, True),
            "decoder": count(self.segmenter.decoder, False),
            "total": count(self.segmenter, False),
        }


def _contents(sets: Mapping[str, Dataset]) -> dict[str, str]:
    """What each set holds, how it is read and the state of its files: a look at every file, once an evaluation."""
    return {name: f"{content_digest(dataset)} {state_on_disk(dataset)}" for name, dataset in sets.items()}


def _percent(value: float | None) -> str:
    return "not scored" if value is None else f"{100 * value:.2f} %"
