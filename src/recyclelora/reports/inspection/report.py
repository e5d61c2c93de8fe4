"""All samples of all datasets: scanned in parallel, compared with each other, summed up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from recyclelora.data.datasets import Corrupted, Dataset
from recyclelora.data.datasets.views import layers
from recyclelora.data.preparation import nothing_to_learn
from recyclelora.data.transforms import Augmentation, resized_shape
from recyclelora.reports.inspection.scan import ERROR, WARNING, Defect, Scan, scan
from recyclelora.system.cores import process_pool

CHUNK = 8


@dataclass
class DatasetReport:
    """One source or target.

    Attributes:
        role: ``source``, ``source_val`` or ``target``.
        num_images: how many were scanned.
        labelled: whether it has masks.
        sizes: (H, W) -> number of images.
        pixels: of each class, (K,).
        images: that hold each class, (K,).
        ignored: share of pixels without a label.
        padded: of a source, the share of training samples that are padded to the crop.
    """

    name: str
    role: str
    num_images: int
    labelled: bool
    sizes: dict[tuple[int, int], int]
    pixels: np.ndarray
    images: np.ndarray
    ignored: float
    padded: float | None = None

    @property
    def frequencies(self) -> np.ndarray:
        """Share of each class in the labelled pixels, (K,)."""
        shares: np.ndarray = self.pixels / max(1, self.pixels.sum())
        return shares


@dataclass
class Report:
    """What is known of the data of a ``data=`` option."""

    data: str
    digest: str | None
    classes: Sequence[str]
    datasets: list[DatasetReport] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)

    @property
    def errors(self) -> list[Defect]:
        """Defects that would stop or spoil a run."""
        return [defect for defect in self.defects if defect.severity == ERROR]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "data": self.data,
            "dataset_digest": self.digest,
            "classes": list(self.classes),
            "datasets": [
                {
                    "name": d.name,
                    "role": d.role,
                    "images": d.num_images,
                    "labelled": d.labelled,
                    "sizes": {f"{width}x{height}": count for (height, width), count in sorted(d.sizes.items())},
                    "ignored": d.ignored,
                    "padded": d.padded,
                    "frequencies": dict(zip(self.classes, d.frequencies.tolist(), strict=True)),
                    "images_with_class": dict(zip(self.classes, d.images.tolist(), strict=True)),
                }
                for d in self.datasets
            ],
            "defects": [asdict(defect) for defect in self.defects],
        }


@dataclass(frozen=True)
class NamedDataset:
    """One dataset of the report: its name there, its role and the dataset."""

    name: str
    role: str
    dataset: Dataset


def inspect(
    entries: Sequence[NamedDataset],
    classes: Sequence[str],
    *,
    augmentation: Augmentation,
    num_workers: int,
    advance: Callable[[int], None] = lambda count: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[list[DatasetReport], list[Defect]]:
    """Scan every sample of every entry.

    Args:
        entries: sources and targets
        classes: names by train id
        augmentation: of training; tells how often images of sources are padded
        num_workers: processes; 0 scans in this one
        advance: told how many samples are done
        stop: asked after each sample whether to look at no more
    """
    scans: dict[str, list[Scan]] = {entry.name: [] for entry in entries}
    jobs = [(entry, index) for entry in entries for index in range(len(entry.dataset))]
    for entry, found in _scanned(jobs, num_workers):
        scans[entry.name].append(found)
        advance(1)
        if stop():
            break
    reports = [_summed(entry, scans[entry.name], len(classes)) for entry in entries]
    for report in reports:
        if report.role == "source":
            report.padded = _padded(report.sizes, augmentation)
    defects = [defect for found in scans.values() for one in found for defect in one.defects]
    defects += [defect for entry in entries for defect in _few_bits(entry, scans[entry.name])]
    defects += [
        d for entry in entries if entry.role == "source" for d in _too_small(entry, scans[entry.name], augmentation)
    ]
    defects += _duplicates(entries, scans)
    if sum(map(len, scans.values())) == len(jobs):
        defects += _missing_classes(reports, entries, classes)
    return reports, sorted(defects, key=lambda d: (d.severity, d.dataset, d.kind, d.file))


def _scanned(jobs: list[tuple[NamedDataset, int]], num_workers: int) -> Iterator[tuple[NamedDataset, Scan]]:
    if num_workers == 0:
        for entry, index in jobs:
            yield entry, _job((entry, index))
        return
    with process_pool(num_workers, method="fork") as pool:
        found = pool.map(_job, jobs, chunksize=CHUNK)
        for (entry, _), one in zip(jobs, found, strict=True):
            yield entry, one


def _job(job: tuple[NamedDataset, int]) -> Scan:
    entry, index = job
    return scan(entry.dataset, index, entry.name)


def padded_share(size: tuple[int, int], augmentation: Augmentation) -> float:
    """In how many draws of the short edge an image of ``size`` (H, W), once it is resized, is smaller than the crop."""
    edges = augmentation.short_edges
    shapes = [resized_shape(size, edge, augmentation.max_long_edge) for edge in edges]
    height, width = augmentation.crop
    return sum(shape[0] < height or shape[1] < width for shape in shapes) / len(edges)


def _padded(sizes: Mapping[tuple[int, int], int], augmentation: Augmentation) -> float:
    """The same for a whole dataset."""
    total = sum(sizes.values())
    return sum(count * padded_share(size, augmentation) for size, count in sizes.items()) / total if total else 0.0


def _too_small(entry: NamedDataset, scans: Sequence[Scan], augmentation: Augmentation) -> list[Defect]:
    """Images that fill the crop at no short edge that can be drawn."""
    rows, columns = augmentation.crop
    return [
        Defect(
            WARNING, "never fills the crop", entry.name, one.name,
            f"{one.size[1]}x{one.size[0]} pixels: padded to {columns}x{rows} in every draw",
        )
        for one in scans
        if one.size is not None and padded_share(one.size, augmentation) == 1
    ]  # fmt: skip


def _summed(entry: NamedDataset, scans: Sequence[Scan], num_classes: int) -> DatasetReport:
    sizes = Counter(one.size for one in scans if one.size is not None)
    counts = np.array([one.counts for one in scans]) if scans else np.zeros((0, 256), np.int64)
    known = counts[:, :num_classes]
    ignored = 1 - known.sum() / max(1, counts.sum())
    return DatasetReport(
        entry.name, entry.role, len(scans), entry.dataset.labelled, sizes,
        known.sum(0), (known > 0).sum(0), float(ignored),
    )  # fmt: skip


def _few_bits(entry: NamedDataset, scans: Sequence[Scan]) -> list[Defect]:
    """Grey masks of 1, 2 or 4 bits among others of 8 bits: an optimiser may have stored 255 as 1, 3 or 15."""
    if not any(one.bits == 8 for one in scans):
        return []
    return [
        Defect(WARNING, "grey of few bits", entry.name, one.name, f"{one.bits} bits, others have 8: read as 0 to {top}")
        for one in scans
        if one.bits is not None and (top := (1 << one.bits) - 1) < 255
    ]


def _duplicates(entries: Sequence[NamedDataset], scans: Mapping[str, Sequence[Scan]]) -> list[Defect]:
    """Equal pictures: an error between training images and a set that is scored, else a warning."""
    first: dict[str, tuple[NamedDataset, str]] = {}
    defects = []
    for entry in entries:  # sources come first
        for one in scans[entry.name]:
            if one.pixels is None:
                continue
            other, name = first.setdefault(one.pixels, (entry, one.name))
            if (other.name, name) == (entry.name, one.name):
                continue
            leaks = other.role == "source" and entry.role != "source"
            seen = (layer for one in (entry, other) for layer in layers(one.dataset))
            if not leaks and other is not entry and any(isinstance(layer, Corrupted) for layer in seen):
                continue  # one set under several corruptions is meant
            severity, kind = (ERROR, "scored image is trained on") if leaks else (WARNING, "duplicate")
            defects.append(Defect(severity, kind, entry.name, one.name, f"the same picture as {other.name}: {name}"))
    return defects


def _missing_classes(
    reports: Sequence[DatasetReport], entries: Sequence[NamedDataset], classes: Sequence[str]
) -> list[Defect]:
    """Classes that no source shows, and those that a labelled dataset defines but never shows."""
    defects: list[Defect] = []
    sources = [report for report in reports if report.role == "source"]
    trained = sum((report.pixels for report in sources), np.zeros(len(classes), np.int64))
    seen = np.flatnonzero(trained).tolist()
    if sources and len(seen) < 2:  # as training refuses it
        text = nothing_to_learn(sum(report.num_images for report in sources), seen, classes)
        defects.append(Defect(ERROR, "nothing to learn", "all sources", "", text))
    for index, name in enumerate(classes):
        if sources and trained[index] == 0:
            defects.append(Defect(WARNING, "class never trained", "all sources", name, "no pixel in any source"))
    for report, entry in zip(reports, entries, strict=True):
        expected = entry.dataset.classes if report.labelled else frozenset[int]()
        absent = [classes[i] for i in sorted(expected) if i < len(classes) and report.pixels[i] == 0]
        if absent and report.role != "source":
            defects.append(Defect(WARNING, "classes never shown", report.name, "", ", ".join(absent)))
    return defects
