"""Scoring the model of a run: at evaluations and at the end, going on where an earlier launch was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from recyclelora.config.run import Config
from recyclelora.config.training import POINTERS
from recyclelora.data.datasets import Dataset, seeded_subset
from recyclelora.data.identity import content_digest, state_on_disk
from recyclelora.data.labels import IGNORE
from recyclelora.evaluation.equal_forwards import EqualForwards
from recyclelora.evaluation.evaluator import Evaluator
from recyclelora.evaluation.extra_metrics import ExtraMetrics, Figures
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.metrics import ConfusionMatrix
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.evaluation.scores import SOURCE_VAL, ScoreHistory, Scores, incomplete
from recyclelora.models.state import load_trainable_state, trainable_state, whole_state
from recyclelora.runs.checkpoint import load_checkpoint, pointed, step_of, tensors_digest
from recyclelora.runs.directory import RunDirectory
from recyclelora.runs.identity import evaluation_identity
from recyclelora.runs.record import code_digest
from recyclelora.system.distributed import from_first, gathered
from recyclelora.system.errors import BrokenFile
from recyclelora.system.progress import Reporter
from recyclelora.training.stop import RunStop

EVAL_SUBSET_SEED = 0
"""Intermediate evaluations of every run look at the same images."""


@dataclass(kw_only=True)
class Scorer:
    """Scores one model on the sets of its run, and remembers the scores by step."""

    config: Config
    fabric: Fabric
    segmenter: Any
    sets: Mapping[str, Dataset]
    directory: RunDirectory
    reporter: Reporter
    stop: RunStop
    matrices: dict[int, dict[str, ConfusionMatrix]] = field(default_factory=dict)
    """step -> set -> what this launch counted last"""
    unreadable: dict[str, list[BrokenFile]] = field(default_factory=dict)
    """set -> what could not be read when it was scored last"""
    figures: Figures = field(default_factory=dict)
    """of further metrics, when the sets were scored last"""

    def __post_init__(self) -> None:
        t, data, fabric = self.config.trainer, self.config.data, self.fabric
        self.metrics = ExtraMetrics(self.config.metrics, data.classes.names, self.reporter.warn)
        crop = data.augment.crop
        self.together: Callable[[], AbstractContextManager[object]] = nullcontext
        if t.strategy == "fsdp":
            self.together = EqualForwards(self.segmenter, (crop[0], crop[1]), fabric.device, fabric.autocast).together
        self.evaluator = Evaluator(
            data.protocol, len(data.classes.names), IGNORE, fabric.device, fabric.autocast, self._summed,
            t.eval_batch_size, t.num_workers, fabric.global_rank, fabric.world_size, t.eval_window_batch,
            self.metrics.of_pixels, self.together,
        )  # fmt: skip
        self.history = ScoreHistory(self.directory.scores)

    def evaluate(self, step: int) -> Scores:
        """Score all sets, on a seeded subset where ``trainer.eval_images`` says so, into the history.

        Raises:
            Stopped: as :meth:`score`.
        """
        sets = self._sets(self.sets)
        size, contents = self.config.trainer.eval_images, _contents(sets)
        scores = self.score(step, sets, contents, whole=size is None)
        self.history.add(scores, self._question(contents) if size is None and not self.unreadable else None)
        return scores

    def look(self, step: int) -> Scores:
        """Score what the objective needs, on the same images; into no history.

        Raises:
            Stopped: as :meth:`score`.
        """
        source = self.config.objective == SOURCE_VAL
        sets = self._sets([name for name in self.sets if (name == SOURCE_VAL) == source])
        return self.score(step, sets, _contents(sets))

    def _sets(self, names: Iterable[str]) -> dict[str, Dataset]:
        """What evaluations during training look at."""
        size = self.config.trainer.eval_images
        return {name: seeded_subset(self.sets[name], size, EVAL_SUBSET_SEED) for name in names}

    def score(
        self, step: int, sets: Mapping[str, Dataset], contents: Mapping[str, str], *, whole: bool = False
    ) -> Scores:  # fmt: skip
        """Score the model as it is on every given set, going on where an earlier launch was stopped.

        ``contents`` are what :func:`_contents` found of the sets as the evaluation began.
        Images that cannot be read are told, listed in ``unreadable`` and left out. Of ``whole`` sets the counts of
        every single image are kept for reports.

        Raises:
            Stopped: a signal, or the driver of the sweep, wants this run to stop.
        """
        matrices: dict[str, ConfusionMatrix] = {}
        counted = whole or bool(self.config.metrics)
        self.unreadable, self.figures = {}, {}
        weights = from_first(tensors_digest(whole_state(trainable_state(self.segmenter))))
        with self.reporter.bar("evaluating", sum(map(len, sets.values()))) as update:
            for name, dataset in sets.items():
                partial = self._partial(step, name, contents[name], weights)
                images = ImageCounts(self.evaluator.num_classes, dataset.drives()) if counted else None
                mine: list[BrokenFile] = []
                matrices[name] = self.evaluator(self.segmenter, dataset, update, partial, images, mine, self.stop.asked)
                broken = gathered(mine)
                if broken:
                    self.unreadable[name] = broken
                    self._tell_unreadable(step, name, dataset, broken)
                elif whole and images and self.fabric.is_global_zero:
                    images.save(self.directory.image_counts / str(step) / f"{name}.safetensors")
                if images and self.fabric.is_global_zero and (figures := self.metrics.of(images)):
                    self.figures[name] = figures
        self.matrices[step] = matrices
        return Scores.of(step, matrices)

    def selected(self, last_step: int) -> dict[str, Scores]:
        """Full scores of ``last``, ``best_source`` and ``best_target``; each step once.

        The model holds the weights of ``last`` before and afterwards.

        Raises:
            Stopped: as :meth:`score`.
            UserError: images cannot be read; all others are scored.
        """
        contents = _contents(self.sets)
        known = self.history.answering(self._question(contents))
        missing: dict[str, BrokenFile] = {}
        last = {name: p.detach().clone() for name, p in trainable_state(self.segmenter).items()}
        selection: dict[str, Scores] = {}
        for pointer in POINTERS:
            folder = pointed(self.directory.checkpoints, pointer)
            if folder is None:
                continue
            step = step_of(folder)
            if step not in known:
                self.reporter.note(f"scoring {pointer} (step {step}) on the full sets")
                load_trainable_state(self.segmenter, last if step == last_step else load_checkpoint(folder).model)
                known[step] = self.score(step, self.sets, contents, whole=True)
                missing |= {str(error): error for errors in self.unreadable.values() for error in errors}
            selection[pointer] = known[step]
        load_trainable_state(self.segmenter, last)
        self.fabric.barrier()
        if missing:
            raise incomplete(list(missing.values()), "the training is finished and kept")
        if self.fabric.is_global_zero:
            self._keep_counts_of({scores.step for scores in selection.values()})
        return selection

    def unreadable_names(self) -> list[str]:
        """The files of all samples that could not be read when they were scored last."""
        return [name for errors in self.unreadable.values() for error in errors for name in error.files]

    # --- counts that are kept -----------------------------------------------------------------------------------------

    def forget_partial(self, step: int) -> None:
        """Remove what was kept for an evaluation that has come to its end."""
        for path in self.directory.partial_counts.glob(f"{step}-*.json"):
            path.unlink(missing_ok=True)

    def _keep_counts_of(self, steps: set[int]) -> None:
        """Of single images only for the selected steps, of evaluations that may be stopped none any more."""
        shutil.rmtree(self.directory.partial_counts, ignore_errors=True)
        for folder in self.directory.image_counts.glob("*"):
            if folder.name not in map(str, steps):
                shutil.rmtree(folder, ignore_errors=True)

    def _partial(self, step: int, name: str, content: str, weights: str) -> PartialCounts:
        """Where this process keeps its counts of one set."""
        rank, world_size = self.fabric.global_rank, self.fabric.world_size
        key = f"{self._question({name: content}, weights)} {rank}/{world_size} {self.evaluator.batch_size}"
        return PartialCounts(self.directory.partial_counts / f"{step}-{name}-{rank}.json", key)

    def _question(self, contents: Mapping[str, str], weights: str = "") -> str:
        """What scores of this run depend on, besides its step: counts kept for another question are not used."""
        data = self.config.data
        asked = evaluation_identity(
            weights, contents, asdict(data.protocol), data.classes.names, str(self.fabric.strategy.precision.precision)
        )
        return f"{asked} {code_digest()}"

    # --- small parts --------------------------------------------------------------------------------------------------

    def _tell_unreadable(self, step: int, name: str, dataset: Dataset, broken: list[BrokenFile]) -> None:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        self.reporter.warn(
            f"{name} after step {step}: scored without {len(broken)} of {len(dataset)} images: {broken[0]}{more}"
        )

    def _summed(self, tensor: Tensor) -> Tensor:
        total = self.fabric.all_reduce(tensor.to(self.fabric.device), reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        return total


def _contents(sets: Mapping[str, Dataset]) -> dict[str, str]:
    """What each set holds, how it is read and the state of its files: a look at every file, once an evaluation."""
    return {name: f"{content_digest(dataset)} {state_on_disk(dataset)}" for name, dataset in sets.items()}
