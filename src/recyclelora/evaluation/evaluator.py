"""Scoring a segmenter on a dataset under a test protocol."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recyclelora.data.datasets import Dataset
from recyclelora.data.loaders import eval_loader
from recyclelora.data.protocol import ProtocolConfig
from recyclelora.data.transforms import Pair
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.metrics import ConfusionMatrix
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.evaluation.pixel_metrics import PixelMetric, Pixels
from recyclelora.evaluation.tta import averaged
from recyclelora.models.segmenter import Segmenter, windows
from recyclelora.system.devices import fetched, sent
from recyclelora.system.errors import BrokenFile, UserError

Advance = Callable[[int], None]

GATHERED = 64
"""Images whose matrices are summed over the processes at once."""


class Stopped(Exception):
    """A scoring that was asked to stop."""


@dataclass(frozen=True)
class _Flight:
    """One round's samples, those of them that could be read, and what a GPU is still computing of them, by groups of
    equally large images: class ids, and probabilities where they are asked for."""

    number: int
    samples: Sequence[Pair | UserError]
    read: Mapping[int, Pair]
    groups: Sequence[tuple[list[int], Callable[[], np.ndarray], Tensor | None]]


@dataclass(frozen=True)
class Evaluator:
    """Scores datasets; ``autocast`` gives the precision's context, ``reduce`` sums over processes.

    ``window_batch`` sliding windows go through the model at once.
    """

    protocol: ProtocolConfig
    num_classes: int
    ignore_index: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]
    reduce: Callable[[Tensor], Tensor]
    batch_size: int = 1
    num_workers: int = 0
    rank: int = 0
    world_size: int = 1
    window_batch: int = 4
    pixel_metrics: Mapping[str, PixelMetric] = field(default_factory=dict)
    """what is summed up of each image's probabilities; without any these are not computed"""
    together: Callable[[], AbstractContextManager[object]] = nullcontext
    """within it, processes that share the model may run it differently often"""

    @torch.inference_mode()
    def __call__(
        self,
        segmenter: Segmenter,
        dataset: Dataset,
        advance: Callable[[int], None] = lambda count: None,
        partial: PartialCounts | None = None,
        images: ImageCounts | None = None,
        broken: list[BrokenFile] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> ConfusionMatrix:
        """The confusion matrix of a whole dataset, summed over all processes.

        Without labels there is nothing to score: every class is absent.

        Args:
            segmenter: the model
            dataset: what it is scored on
            advance: told of images done
            partial: what an earlier call had counted when it was stopped
            images: gets the confusion matrix of every single image and the sums of pixel metrics, of all processes
            broken: gets what cannot be read, of this process, and the rest is scored; None: the first one is raised
            stop: asked after each batch whether to stop

        Raises:
            Stopped: ``stop`` said so, to this process or to another one; ``partial`` holds what was done.
            UserError: a sample cannot be read.
        """
        confusion = ConfusionMatrix(self.num_classes, self.ignore_index)
        if not dataset.labelled:
            advance(len(dataset))
            return confusion
        was_training = segmenter.training
        segmenter.eval()
        try:
            mine = self._counted(segmenter, dataset, advance, partial, confusion, broken, stop)
        finally:
            segmenter.train(was_training)
        if images is not None:
            images.replace(self._gathered(mine, len(dataset)))
        return confusion.all_reduced(self.reduce)

    def _counted(
        self, segmenter: Segmenter, dataset: Dataset, advance: Callable[[int], None], partial: PartialCounts | None,
        confusion: ConfusionMatrix, broken: list[BrokenFile] | None, stop: Callable[[], bool],
    ) -> ImageCounts:  # fmt: skip
        """Count the images of this process into ``confusion``; returns each one's own counts."""
        done, mine = (
            (0, ImageCounts(self.num_classes))
            if partial is None
            else partial.load(self.num_classes, self.pixel_metrics)
        )
        confusion.counts = mine.total()
        loader = iter(eval_loader(
            self.protocol.prepared(dataset), batch_size=self.batch_size, num_workers=self.num_workers,
            rank=self.rank, world_size=self.world_size, skip=done,
        ))  # fmt: skip
        advance(min(done * self.batch_size, len(dataset)))
        whole, reached, key = True, done, self.protocol.key(dataset)
        flight: deque[_Flight] = deque()
        in_flight = 1 if self.device.type == "cuda" else 0  # a GPU works on so many while an earlier one is counted
        rounds = -(-len(dataset) // (self.world_size * self.batch_size))
        # every process goes through as many rounds, so that all hear of a stop in the same one
        for number in range(1, rounds + 1):
            samples = [] if number <= done else next(loader, [])
            with self.together():
                flight.append(self._started(segmenter, number, samples, key, broken))
            stopping = self._any(stop())
            landed = 0
            while flight and (stopping or number == rounds or len(flight) > in_flight):
                batch = flight.popleft()
                for counts in self._counts(batch, confusion):
                    mine.add(*counts)
                whole = whole and not any(isinstance(sample, UserError) for sample in batch.samples)
                reached = batch.number if whole and batch.samples else reached
                landed += len(batch.samples)
            if partial is not None and whole and reached > done:  # a gap would be taken for what was counted
                partial.update(reached, mine, now=stopping)
            if stopping:
                raise Stopped
            advance(landed)
        if partial is not None and whole and reached > done:
            partial.finish(reached, mine)
        return mine

    def _started(
        self, segmenter: Segmenter, number: int, samples: Sequence[Pair | UserError], dataset: str,
        broken: list[BrokenFile] | None,
    ) -> _Flight:  # fmt: skip
        """Begin to predict the samples of one round that can be read."""
        read: dict[int, Pair] = {}
        for index, sample in enumerate(samples):
            if not isinstance(sample, UserError):
                read[index] = sample
            elif broken is None or not isinstance(sample, BrokenFile):
                raise sample
            else:
                broken.append(sample)
        groups = []
        for group in by_shape(read):
            scores = self.scores(segmenter, [read[index][0] for index in group], dataset)
            chances = self._as_probabilities(segmenter, scores) if self.pixel_metrics else None
            groups.append((group, _ids(scores), chances))
        return _Flight(number, samples, read, groups)

    def _counts(self, batch: _Flight, confusion: ConfusionMatrix) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Matrix and sums of each sample, the former also in ``confusion``; zeros of one that cannot be read."""
        empty = np.zeros((self.num_classes, self.num_classes), np.int64)
        found = [(empty.copy(), self._no_sums()) for _ in batch.samples]
        for group, ids, chances in batch.groups:
            for place, (index, prediction) in enumerate(zip(group, ids(), strict=True)):
                truth = batch.read[index][1]
                sums = {}
                if chances is not None:
                    pixels = Pixels(chances[place], prediction, truth, self.ignore_index)
                    sums = {name: metric.count(pixels) for name, metric in self.pixel_metrics.items()}
                found[index] = (confusion.update(truth, prediction), sums)
        return found

    def _no_sums(self) -> dict[str, np.ndarray]:
        return {name: np.zeros(metric.size(self.num_classes)) for name, metric in self.pixel_metrics.items()}

    def _any(self, here: bool) -> bool:
        """Whether any process says so."""
        return here if self.world_size == 1 else bool(self.reduce(torch.tensor(float(here))) > 0)

    def _gathered(self, mine: ImageCounts, length: int) -> ImageCounts:
        """The images of all processes in the dataset's order; process r scored r, r + world_size, ..."""
        if self.world_size == 1:
            return mine
        whole = ImageCounts(self.num_classes)
        for start in range(0, length, GATHERED):
            stop = min(start + GATHERED, length)
            first = start + (self.rank - start) % self.world_size  # the first of these that is this process's
            dense = np.zeros((stop - start, self.num_classes, self.num_classes), np.int64)
            own = dense[first - start :: self.world_size]
            own[:] = mine.dense(first // self.world_size, first // self.world_size + len(own))
            sums = {}
            for name, zeros in self._no_sums().items():
                rows = np.tile(zeros, (stop - start, 1))
                rows[first - start :: self.world_size] = mine.part(name, first // self.world_size, len(own), len(zeros))
                sums[name] = self.reduce(torch.from_numpy(rows)).cpu().numpy()
            for index, matrix in enumerate(self.reduce(torch.from_numpy(dense)).cpu().numpy()):
                whole.add(matrix, {name: rows[index] for name, rows in sums.items()})
        return whole

    def predict(self, segmenter: Segmenter, images: list[np.ndarray], dataset: str = "") -> list[np.ndarray]:
        """Class ids, uint8 (H, W), of equally large uint8 RGB images (H, W, 3)."""
        return list(_ids(self.scores(segmenter, images, dataset))())

    def probabilities(
        self, segmenter: Segmenter, images: list[np.ndarray], dataset: str = "", advance: Advance = lambda count: None
    ) -> Tensor:
        """Class probabilities (B, num_classes, H, W) at the images' own size; ``advance`` is told of windows done."""
        return self._as_probabilities(segmenter, self.scores(segmenter, images, dataset, advance))

    def _as_probabilities(self, segmenter: Segmenter, scores: Tensor) -> Tensor:
        found: Tensor = scores if self.protocol.augmented else segmenter.decoder.probabilities(scores)  # type: ignore[operator]
        return found

    def scores(
        self, segmenter: Segmenter, images: list[np.ndarray], dataset: str = "", advance: Advance = lambda count: None
    ) -> Tensor:
        """The decoder's scores (B, num_classes, H, W) at the images' own size; of several views mean probabilities."""
        size = (images[0].shape[0], images[0].shape[1])
        shown = [_resized(image, self.protocol.shown_size(dataset, size)) for image in images]
        batch = sent(np.stack(shown).transpose(0, 3, 1, 2).copy(), self.device)
        with torch.inference_mode(), self.autocast():
            if self.protocol.augmented:
                scores = averaged(
                    lambda view: segmenter.decoder.probabilities(self._scores(segmenter, view, advance)),  # type: ignore[operator]
                    batch, self.protocol.scales, self.protocol.flip,
                )  # fmt: skip
            else:
                scores = self._scores(segmenter, batch, advance)
        if tuple(scores.shape[-2:]) != size:
            scores = F.interpolate(scores.float(), size=size, mode="bilinear", align_corners=False)
        return scores

    def _scores(self, segmenter: Segmenter, images: Tensor, advance: Advance) -> Tensor:
        if self.protocol.mode == "slide":
            window, stride = self.protocol.window, self.protocol.stride
            return segmenter.sliding_logits(images, window, stride, self.window_batch, advance)
        scores = segmenter.logits(images)
        advance(1)
        return scores

    def steps(self, size: tuple[int, int], dataset: str = "") -> int:
        """How often ``advance`` hears of one more window of an image of ``size`` (H, W)."""
        high, wide = self.protocol.shown_size(dataset, size)
        views = [(round(high * scale), round(wide * scale)) for scale in self.protocol.scales]
        if self.protocol.mode != "slide":
            return len(views) * (1 + self.protocol.flip)
        each = [sum(1 for _ in windows(view, self.protocol.window, self.protocol.stride)) for view in views]
        return sum(each) * (1 + self.protocol.flip)


def _ids(scores: Tensor) -> Callable[[], np.ndarray]:
    """Begin to fetch the class ids; what is returned waits for the device and gives them, uint8 (B, H, W)."""
    return fetched(scores.argmax(1).to(torch.uint8))


def by_shape(samples: Mapping[int, Pair]) -> list[list[int]]:
    """Group the positions of samples whose images are equally large."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (image, _) in samples.items():
        groups.setdefault(image.shape, []).append(index)
    return list(groups.values())


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if size == image.shape[:2]:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
