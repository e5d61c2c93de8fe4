"""The training session of a run: model, optimizer and what happens around the steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from recyclelora.build import Model, build_schedule
from recyclelora.build_data import Datasets, build_augmentation, build_extras, build_rare_classes
from recyclelora.data.datasets import Dataset, seeded_subset
from recyclelora.data.loaders import StepSampler, TrainStream, train_loader
from recyclelora.engine.average import WeightAverage
from recyclelora.engine.checkpoint import Checkpoint, load_checkpoint, point, pointed, prune, save_checkpoint
from recyclelora.engine.evaluation import Evaluator
from recyclelora.engine.loop import Cadence, fit
from recyclelora.engine.optimizer import adamw, load_optimizer_state, optimizer_state, parameter_groups
from recyclelora.engine.partial import PartialCounts
from recyclelora.engine.runtime import StopRequest
from recyclelora.engine.trainables import load_trainable_state, trainable_state
from recyclelora.hardware import peak_memory_mb
from recyclelora.image_counts import ImageCounts
from recyclelora.metrics import ConfusionMatrix
from recyclelora.metrics_log import MetricsLog, total_loss
from recyclelora.pictures import Pictures
from recyclelora.progress import Reporter, Update
from recyclelora.provenance import RunDirectory
from recyclelora.results import POINTERS, Scores, best_step, objective
from recyclelora.schemas import Config
from recyclelora.sweep.unit import Unit

KEPT_CHECKPOINTS = 3
EVAL_SUBSET_SEED = 0
"""Intermediate evaluations of every run look at the same images."""


@dataclass
class Session:
    """Trains one model; implements the hooks of :func:`recyclelora.engine.loop.fit`."""

    config: Config
    fabric: Fabric
    model: Model
    datasets: Datasets
    evaluator: Evaluator
    directory: RunDirectory
    reporter: Reporter
    step: int = 0
    history: list[Scores] = field(default_factory=list)
    seconds: float = 0.0
    """spent in training and evaluation by earlier launches"""
    matrices: dict[int, dict[str, ConfusionMatrix]] = field(default_factory=dict)
    """step -> set -> what this launch counted last"""

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
        self.metrics = MetricsLog(self.directory.metrics)
        self.pictures = Pictures(c, self.directory, self.datasets.scored, self.evaluator, self.segmenter)
        self.stop = StopRequest()
        self.unit = Unit.current()
        self._update: Update = lambda count, status="", total=None: None
        self.clock: Callable[[], float] = lambda: 0.0
        self._evaluating = 0.0

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
        self.step = checkpoint.step
        self.history = [Scores(**scores) for scores in checkpoint.state["history"]]
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
        cadence = Cadence(t.max_steps, t.log_every, t.eval_every, t.checkpoint_every or t.eval_every)
        self.segmenter.train()
        with self.stop, self.reporter.bar("training", t.max_steps, self.step, terse=True) as self._update:
            self.step = fit(
                self.fabric, self.wrapped, self.optimizer, schedule, loader, cadence, self,
                seed=c.seed, start=self.step, accumulate=t.accumulate, counts=self.segmenter.counts,
                grad_clip=t.grad_clip,
                after_step=self._after_step,
            )  # fmt: skip
        return self.step == t.max_steps

    def _after_step(self, step: int) -> None:
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
            scores = self.score(step, sets, whole=size is None)
            self.history.append(scores)
            if self.fabric.is_global_zero:
                if self.unit is not None:
                    self.unit.report(step, objective(scores, self.config.objective))
                share = (self._evaluating + self.clock() - began) / self.clock()
                self.metrics.append(step, {**scores.points(), "evaluation_share": share})
                self.pictures.evaluation(scores, self.matrices[step])
                self._evaluating += self.clock() - began
                mean, source = scores.target_mean, scores.miou("source_val")
                self.reporter.note(
                    f"step {step}: mIoU targets {_percent(mean)}, source validation {_percent(source)} "
                    f"({share:.0%} of the time so far spent in evaluations)"
                )

    def score(self, step: int, sets: dict[str, Dataset], *, whole: bool = False, resumable: bool = False) -> Scores:
        """Score the model as it is on every given set; a ``resumable`` scoring goes on where it was stopped.

        Of ``whole`` sets the counts of every single image are kept for reports.
        """
        matrices: dict[str, ConfusionMatrix] = {}
        with self.reporter.bar("evaluating", sum(map(len, sets.values()))) as update:
            for name, dataset in sets.items():
                partial = self._partial(step, name) if resumable else None
                images = ImageCounts(self.evaluator.num_classes, dataset.drives()) if whole else None
                matrices[name] = self.evaluator(self.segmenter, dataset, update, partial, images)
                if images and self.fabric.is_global_zero:
                    images.save(self.directory.image_counts / str(step) / f"{name}.safetensors")
        self.matrices[step] = matrices
        return Scores.of(step, matrices)

    def _partial(self, step: int, name: str) -> PartialCounts:
        """Where this process keeps its counts of one set; the run's directory stands for model, data and protocol."""
        rank, world_size = self.fabric.global_rank, self.fabric.world_size
        key = f"{step} {name} {rank}/{world_size} {self.evaluator.batch_size}"
        return PartialCounts(self.directory.path / "evaluations/partial" / f"{step}-{name}-{rank}.json", key)

    def save(self, step: int) -> None:
        """Write a checkpoint and move the pointers."""
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
                "history": [s.to_json() for s in self.history],
                "seconds": self.seconds + self.clock(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            save_checkpoint(self.directory.checkpoints, Checkpoint(step, tensors, state))
            self._point(step)
            prune(self.directory.checkpoints, KEPT_CHECKPOINTS, POINTERS)
        self.fabric.barrier()

    def _point(self, step: int) -> None:
        """Let the pointers name the checkpoint of ``step``, and the best ones by the scores so far."""
        point(self.directory.checkpoints, POINTERS[0], step)
        for pointer in POINTERS[1:]:
            best = best_step(self.history, pointer)
            if best is not None:
                point(self.directory.checkpoints, pointer, best)

    def stop_requested(self) -> bool:
        """Whether any process was asked to stop."""
        mine = self.stop.received is not None or (self.unit is not None and self.unit.stop_reason() is not None)
        if self.fabric.world_size == 1:
            return mine
        votes = self.fabric.all_reduce(torch.tensor(float(mine), device=self.fabric.device), reduce_op="sum")
        return bool(torch.as_tensor(votes) > 0)

    # --- the end ------------------------------------------------------------------------------------------------------

    def final_scores(self) -> dict[str, Scores]:
        """Full scores of ``last``, ``best_source`` and ``best_target``; each step once.

        The model holds the weights of ``last`` afterwards, averaged where there is an average.
        """
        if self.average is not None:
            load_trainable_state(self.segmenter, self.average.state)
        known = {s.step: s for s in self.history} if self.config.trainer.eval_images is None else {}
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
                known[step] = self.score(step, self.datasets.scored, whole=True, resumable=True)
            selection[pointer] = known[step]
        load_trainable_state(self.segmenter, last)
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            shutil.rmtree(self.directory.path / "evaluations/partial", ignore_errors=True)
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


def _percent(value: float | None) -> str:
    return "not scored" if value is None else f"{100 * value:.2f} %"
