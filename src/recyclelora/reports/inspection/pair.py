"""The datasets of a ``data=`` option, opened and scanned, also where some of them cannot be opened."""

from __future__ import annotations

from collections import Counter

from recyclelora.data.build import build_augmentation
from recyclelora.data.config import DataConfig, DatasetConfig
from recyclelora.data.datasets import Dataset, digest
from recyclelora.data.datasets.account import UNMASKED
from recyclelora.data.datasets.files import tolerating
from recyclelora.data.open import open_one, own_files
from recyclelora.data.patterns import printable
from recyclelora.data.preparation import render_scenes, scenes_to_render
from recyclelora.reports.inspection.report import NamedDataset, Report, inspect
from recyclelora.reports.inspection.scan import ERROR, WARNING, Defect, relative_name
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter
from recyclelora.system.stopping import StopRequest

NOT_OPENED = "cannot be opened"
"""Kind of defect of a dataset that is not there, or not as it should be."""


def data_report(
    data: DataConfig, cache: str, num_workers: int, reporter: Reporter, stop: StopRequest
) -> tuple[Report, list[NamedDataset]]:
    """Open and scan all sources and targets of a pair.

    Args:
        data: the pair
        cache: where rendered scenes are kept
        num_workers: processes that scan
        reporter: shows the progress
        stop: heeded while samples are scanned; the report then tells of those that were

    Returns:
        the report, and the datasets that could be opened.
    """
    entries, defects = open_datasets(data, cache)
    defects += unused_files(data)
    datasets = [entry.dataset for entry in entries]
    jobs = scenes_to_render(datasets)
    if jobs:
        with reporter.bar("rendering streets (once)", len(jobs)) as update:
            render_scenes(jobs, update)
    augmentation = build_augmentation(data)
    with stop, reporter.bar("scanning", sum(map(len, datasets))) as update:
        reports, found = inspect(
            entries, data.classes.names,
            augmentation=augmentation, num_workers=num_workers, advance=update, stop=stop.requested,
        )  # fmt: skip
    looked_at, every = sum(report.num_images for report in reports), sum(map(len, datasets))
    if looked_at < every:
        defects.append(Defect(ERROR, "not finished", "all", "", f"stopped after {looked_at} of {every} samples"))
    try:
        whole = digest(datasets) if not any(defect.severity == ERROR for defect in defects) else None
    except UserError:  # the scan has named the file that is not there
        whole = None
    return Report(data.name, whole, data.classes.names, reports, defects + found), entries


def open_datasets(data: DataConfig, cache: str) -> tuple[list[NamedDataset], list[Defect]]:
    """Open every dataset that can be opened; what cannot, and images without masks, are defects."""
    labels = Counter(data.title(c) for c in data.sources)
    asked = [("source", _source_name(data.title(c), c, splits=labels[data.title(c)] > 1), c) for c in data.sources]
    asked.append(("source_val", "source_val", data.source_val))
    asked += [("target", c.label, c) for c in data.targets]
    entries: list[NamedDataset] = []
    defects: list[Defect] = []
    for role, name, config in asked:
        try:
            with tolerating() as problems:
                dataset: Dataset = open_one(config, data, cache)
        except UserError as error:
            defects.append(Defect(ERROR, NOT_OPENED, name, "", str(error)))
            continue
        defects += [Defect(ERROR, problem.kind, name, printable(problem.file), problem.detail) for problem in problems]
        entries.append(NamedDataset(name, role, dataset))
    return entries, defects


def unused_files(data: DataConfig) -> list[Defect]:
    """Every file of a user's own folder that nothing reads, and why."""
    try:
        files = own_files(data)
    except (UserError, OSError):  # what cannot be opened is told already
        return []
    if files is None:
        return []
    return [
        Defect(WARNING, f"not used: {reason}", data.name, relative_name(path, files.root), "")
        for reason, paths in files.unused.items()
        if reason != UNMASKED  # which is an error
        for path in paths
    ]


def _source_name(title: str, config: DatasetConfig, *, splits: bool) -> str:
    """A source's name in the report; ``source_val`` and targets have their own."""
    return f"{title} (source, {config.split})" if splits else f"{title} (source)"
