"""The training of a run: model, optimizer, and what happens around the steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from recyclelora.config.build import Model
from recyclelora.config.run import Config
from recyclelora.config.training import POINTERS
from recyclelora.data.build import Datasets, build_augmentation, build_rare_classes, count_classes
from recyclelora.data.extra_augmentation import ExtraAugmentation
from recyclelora.data.loaders import Batch, StepSampler, TrainStream, train_loader
from recyclelora.data.workers import Loader
from recyclelora.evaluation.extra_metrics import points
from recyclelora.evaluation.scores import Scores, best_step, objective
from recyclelora.models.sharding import send_buffers
from recyclelora.models.state import load_trainable_state, parameter_counts
from recyclelora.runs.checkpoint import Checkpoint, point, prune, save_checkpoint
from recyclelora.runs.directory import METRICS, RunDirectory
from recyclelora.runs.metrics_log import EVALUATION_SHARE, MetricsLog, total_loss
from recyclelora.runs.record import add_to_record
from recyclelora.runs.unit import Unit
from recyclelora.system.devices import first_alone
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter, Update
from recyclelora.training.average import WeightAverage
from recyclelora.training.loop import Cadence, fit
from recyclelora.training.optimizer import build_optimizer, described, group_table
from recyclelora.training.pictures import Pictures
from recyclelora.training.schedule import build_schedule
from recyclelora.training.scorer import Scorer
from recyclelora.training.spent import Spent
from recyclelora.training.stop import RunStop
from recyclelora.training.stored import restore_tensors, stored_tensors

KEPT_CHECKPOINTS = 3


@dataclass(kw_only=True)
class Trainer:
    """Trains one model; implements the hooks of :func:`recyclelora.training.loop.fit`."""

    config: Config
    fabric: Fabric
    model: Model
    datasets: Datasets
    directory: RunDirectory
    reporter: Reporter
    began: float
    """``time.perf_counter()`` when this launch did"""
    unit: Unit | None = None
    step: int = 0

    def __post_init__(self) -> None:
        c, t = self.config, self.config.trainer
        if t.checkpointing:
            self.segmenter.backbone.model.set_grad_checkpointing(True)
        if t.compile:
            self.segmenter.backbone.compile(mode=t.compile_mode)
        self.wrapped = self.fabric.setup_module(self.segmenter)
        self.optimizer: Any = self.fabric.setup_optimizers(  # of the parameters that a sharded model now has
            build_optimizer(self.segmenter, self.model.rules, c.optimizer, self.fabric)
        )
        self.average = None
        if t.ema is not None:
            self.average = WeightAverage(self.segmenter, t.ema, t.ema_start, self.model.constrain)
        self.initial = {name: tensor.cpu() for name, tensor in self.model.initial().items()}
        gpus = self.fabric.world_size if self.fabric.device.type == "cuda" else 0
        self.spent = Spent(self.fabric.device, gpus, self.began)
        self.stop = RunStop(self.fabric, self.unit)
        self.scorer = Scorer(
            config=c, fabric=self.fabric, segmenter=self.segmenter, sets=self.datasets.scored,
            directory=self.directory, reporter=self.reporter, stop=self.stop,
        )  # fmt: skip
        self.metrics = MetricsLog(self.directory.path / METRICS)
        self.pictures = Pictures(c, self.directory, self.datasets.scored, self.scorer.evaluator, self.segmenter)
        self.cadence = Cadence(t.max_steps, t.log_every, t.eval_every, t.checkpoint_every or t.eval_every)
        self._update: Update = lambda count, status="", total=None: None
        self._evaluating = 0.0
        self._saved = 0

    @property
    def segmenter(self) -> Any:
        """The model without its wrapper for devices and precision."""
        return self.model.segmenter

    @property
    def unscored(self) -> bool:
        """Whether the evaluation that is due after the steps so far is still to be done."""
        due = self.step > 0 and self.cadence.due(self.step, self.config.trainer.eval_every)
        return due and self.step not in self.scorer.history

    # --- before the first step ----------------------------------------------------------------------------------------

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Tell what learns; go back to a checkpoint, if there is one, and forget what was written after it."""
        counts, groups = parameter_counts(self.segmenter), described(self.optimizer)
        trainable, decoder = counts["backbone_trainable"], counts["decoder"]
        self.reporter.note(f"trainable parameters: {trainable:,} in the backbone, {decoder:,} in the decoder")
        self.reporter.table(group_table(groups))
        if self.fabric.is_global_zero:
            add_to_record(self.directory, {"parameter_groups": groups})
        if checkpoint is not None:
            self._restore(checkpoint)
        if self.fabric.is_global_zero:
            if not self.metrics.rewind(self.step, scored=not self.unscored):
                self.reporter.warn(f"{self.metrics.path}: has no points up to step {self.step}; the curves begin there")
            self.pictures.rewind(self.step)
        if checkpoint is not None:
            self.reporter.note(f"resuming after step {self.step} of {self.config.trainer.max_steps}")

    def _restore(self, checkpoint: Checkpoint) -> None:
        restore_tensors(checkpoint.tensors, self.model, self.optimizer.optimizer, self.average)
        self.fabric.strategy.precision.load_state_dict(checkpoint.state["precision"])
        self.step = self._saved = checkpoint.step
        self.scorer.history.restore(checkpoint.state["history"], checkpoint.step)
        self.spent.restore(checkpoint.state)
        if self.fabric.is_global_zero:
            self._point(self.step)  # a kill between a checkpoint and its pointers leaves those of the checkpoint before

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(self) -> bool:
        """Train to the end; False when a stop was requested and the run saved itself before the end.

        Raises:
            Stopped: it was requested within an evaluation, whose counts are kept.
        """
        c, t = self.config, self.config.trainer
        stream = self._stream()
        sampler = StepSampler(t.batch_size, self.step, t.max_steps, self.fabric.global_rank, self.fabric.world_size)
        loader = train_loader(stream, sampler, num_workers=t.num_workers, pin_memory=self.fabric.device.type == "cuda")
        if self.step == 0:
            with self.scorer.together():
                if self.fabric.is_global_zero:
                    self.pictures.start(stream)
        self.segmenter.train()
        with self.stop:
            if self.unscored:
                self.evaluate(self.step)
            if self.pauses(self.step) and self.halt(self.step):
                return False
            with self.reporter.bar("training", t.max_steps, self.step, terse=True) as self._update:
                fit(
                    self.fabric, self.wrapped, self.optimizer, build_schedule(c), self._batches(loader), self.cadence,
                    self, seed=c.seed, start=self.step, accumulate=t.accumulate, counts=self.segmenter.counts,
                    grad_clip=t.grad_clip, before_step=self._before_step, after_step=self._after_step,
                )  # fmt: skip
        return self.step == t.max_steps and not self.stop.agreed(self.stop.requested())

    def _stream(self) -> TrainStream:
        """The augmented samples of all sources; the first process counts rare classes, the others read its counts."""
        c, sources = self.config, self.datasets.sources
        counting = partial(self.reporter.bar, "counting classes (once)")
        with first_alone(self.fabric):
            rare = build_rare_classes(c.data, sources, c.cache, counting)
            if getattr(getattr(c.decoder, "loss", None), "balance", None) is not None:
                pixels = np.concatenate(count_classes(c.data, sources, c.cache, counting))
                self.segmenter.decoder.pixel_loss.balance(pixels)
        weights = [source.weight for source in c.data.sources]
        return TrainStream(
            sources, weights, build_augmentation(c.data), c.seed, ExtraAugmentation(c.data.augment), rare
        )

    def _batches(self, loader: Loader[Batch]) -> Iterator[Batch]:
        """The loader's batches; what has been learnt is saved when it cannot go on."""
        try:
            yield from loader
        except UserError:
            if self.step > self._saved and self.fabric.world_size == 1:  # several processes do not all know of it
                self.save(self.step)
            raise

    def _before_step(self, step: int) -> None:
        if self.config.trainer.strategy == "fsdp":
            send_buffers(self.segmenter)
        self.segmenter.begin_step(step)

    def _after_step(self, step: int) -> None:
        self.step = step
        self._update(1)
        if self.model.after_step is not None:
            self.model.after_step(step)
        if self.average is not None:
            self.average.update(step)

    # --- hooks --------------------------------------------------------------------------------------------------------

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record a point and tell it."""
        if not self.fabric.is_global_zero:
            return
        self.metrics.append(step, values)
        loss = total_loss(values) or 0.0
        pace, wait = values["seconds_per_step"], values["data_wait_share"]
        if self.unit is not None:
            self.unit.progress(step, self.config.trainer.max_steps, loss)
        memory = self.spent.peak_memory_mb / 1024
        self._update(0, f"loss {loss:.3f}  {pace:.2f} s/step  data wait {wait:.0%}  {memory:.1f} GiB")

    def evaluate(self, step: int) -> None:
        """Score source validation and targets with the weights that are kept; let the pointers follow."""
        began = time.perf_counter()
        with self._kept_weights():
            scores = self.scorer.evaluate(step)
            with self.scorer.together():  # pictures of the model's predictions, by the first process
                if self.fabric.is_global_zero:
                    self._tell(step, scores, began)

    def _tell(self, step: int, scores: Scores, began: float) -> None:
        """Record an evaluation that began at ``began`` on the clock, let the pointers follow, draw it."""
        if self.unit is not None:
            self.unit.report(step, objective(scores, self.config.objective))
        now = time.perf_counter()
        share = (self._evaluating + now - began) / (now - self.began)
        self.metrics.append(step, {**scores.points(), **points(self.scorer.figures), EVALUATION_SHARE: share})
        self.scorer.history.write()
        self._point(step)
        prune(self.directory.checkpoints, KEPT_CHECKPOINTS, POINTERS)
        self.pictures.evaluation(scores, self.scorer.matrices[step])
        self._evaluating += time.perf_counter() - began
        mean, source = scores.target_mean, _percent(scores.miou("source_val"))
        found = f"targets {_percent(mean)}, source validation {source}" if scores.targets else source
        self.reporter.note(f"step {step}: mIoU {found} ({share:.0%} of the time so far spent in evaluations)")
        self.scorer.forget_partial(step)

    def save(self, step: int) -> None:
        """Write a checkpoint and let ``last`` name it."""
        tensors = stored_tensors(self.model, self.optimizer.optimizer, self.average, self.initial)
        if self.fabric.is_global_zero:
            state = {
                "history": self.scorer.history.to_json(),
                **self.spent.state(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            with self.stop.saving():
                save_checkpoint(self.directory.checkpoints, Checkpoint(step, tensors, state))
                self._point(step)
                prune(self.directory.checkpoints, KEPT_CHECKPOINTS, POINTERS)
        self._saved = step
        self.fabric.barrier()

    def stop_requested(self) -> bool:
        """Whether any process was asked to stop."""
        return self.stop.agreed(self.stop.asked(at_once=True))

    def pauses(self, step: int) -> bool:
        """Whether the sweep wants to compare this run with others after ``step``."""
        return self.stop.pauses(step)

    def halt(self, step: int) -> bool:
        """Report the objective after ``step``, which no curve or selection takes in; whether the run stops here.

        Raises:
            Stopped: as :meth:`evaluate`.
        """
        known = next((scores for scores in self.scorer.history.scores if scores.step == step), None)
        if known is None:
            with self._kept_weights():
                known = self.scorer.look(step)
            self.scorer.forget_partial(step)
        value = objective(known, self.config.objective)
        if self.unit is not None and self.fabric.is_global_zero:
            self.unit.report(step, value)
        return self.stop.pause(step, value)

    def _point(self, step: int) -> None:
        """Let the pointers name the checkpoint of ``step``, and the best ones by the scores so far."""
        point(self.directory.checkpoints, POINTERS[0], step)
        for pointer in POINTERS[1:]:
            best = best_step(self.scorer.history.scores, pointer)
            if best is not None:
                point(self.directory.checkpoints, pointer, best)

    def _kept_weights(self) -> AbstractContextManager[None]:
        """Let the model hold the weights that are scored and kept: the averaged ones where there is an average."""
        return nullcontext() if self.average is None else self.average.in_place()

    def hold_kept_weights(self) -> None:
        """The same for good, at the end of a run."""
        if self.average is not None:
            load_trainable_state(self.segmenter, self.average.state)


def _percent(value: float | None) -> str:
    return "not scored" if value is None else f"{100 * value:.2f} %"
