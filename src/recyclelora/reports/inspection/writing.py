"""The inspection of a pair, from the scan to its report, its page and its words on the terminal."""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.build import class_colours
from recyclelora.data.config import DataConfig
from recyclelora.data.open import ADVICE, any_download
from recyclelora.reports.inspection.page import write_page
from recyclelora.reports.inspection.pair import NOT_OPENED, data_report
from recyclelora.reports.inspection.tables import tables
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter
from recyclelora.system.stopping import StopRequest
from recyclelora.system.storage import write_json, write_text


def inspect_pair(
    data: DataConfig, cache: str, output_dir: Path, num_workers: int, reporter: Reporter, num_samples: int = 8
) -> None:
    """Scan a pair, print and write its report.

    Raises:
        UserError: there are errors in the data; the report is written first.
        Interrupted: a signal asked to stop; the report tells of what was looked at.
    """
    stop = StopRequest()
    report, datasets = data_report(data, cache, num_workers, reporter, stop)
    folder = output_dir / "inspect" / data.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report.to_json())
    write_text(folder / "index.html", write_page(report, datasets, class_colours(data), num_samples))
    for table in tables(report):
        reporter.table(table)
    reporter.note(f"dataset digest: {report.digest or 'none, with errors in the data'}")
    reporter.note(f"written: {folder}/index.html, {folder}/report.json")
    if stop.received is not None:
        raise stop.interrupted(f"; {folder} tells of what was looked at until then")
    if report.errors:
        shown = [f"{d.dataset}: {d.kind}: {' '.join(filter(None, (d.file, d.detail)))}" for d in report.errors[:5]]
        more = [f"and {len(report.errors) - 5} more"] if len(report.errors) > 5 else []
        away = any(d.kind == NOT_OPENED for d in report.errors)
        away = away and any_download((*data.sources, data.source_val, *data.targets))
        raise UserError("\n".join([f"{len(report.errors)} errors in the data:", *shown, *more, *[ADVICE] * away]))
