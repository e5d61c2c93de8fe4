"""Find every defect of the data before any GPU hour.

    recyclelora inspect-data data=gta2city

data=           one of the options below; data.root= names the folder with the datasets
num_workers=    processes that read images (default 4)
num_samples=    pictures of each dataset on the page (default 8)
output_dir=     the page is <output_dir>/inspect/<data>/index.html (default: outputs)
cache=          folder of what is computed once (default: ~/.cache/recyclelora)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recyclelora.commands import start
from recyclelora.config.commands import InspectConfig
from recyclelora.data.config import DataConfig
from recyclelora.system.stopping import StopRequest

if TYPE_CHECKING:
    from recyclelora.system.progress import Reporter


def inspect_data(config: InspectConfig, trial: int | None = None) -> None:
    """Scan all sources and targets; write ``report.json`` and ``index.html`` to ``<output_dir>/inspect/<data>``."""
    from recyclelora.system.progress import Reporter

    inspect_pair(config.data, config.cache, Path(config.output_dir), config.num_workers, Reporter(), config.num_samples)


def inspect_pair(
    data: DataConfig, cache: str, output_dir: Path, num_workers: int, reporter: Reporter, num_samples: int = 8
) -> None:
    """Scan a pair, print and write its report.

    Raises:
        UserError: there are errors in the data; the report is written first.
        Interrupted: a signal asked to stop; the report tells of what was looked at.
    """
    from recyclelora.data.build import class_colours
    from recyclelora.reports.inspection.page import write_page
    from recyclelora.reports.inspection.parts import data_report
    from recyclelora.reports.inspection.tables import tables
    from recyclelora.system.errors import Interrupted, UserError
    from recyclelora.system.storage import write_json, write_text

    stop = StopRequest()
    report, parts = data_report(data, cache, num_workers, reporter, stop)
    folder = output_dir / "inspect" / data.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report.to_json())
    write_text(folder / "index.html", write_page(report, parts, class_colours(data), num_samples))
    for table in tables(report):
        reporter.table(table)
    reporter.note(f"dataset digest: {report.digest}")
    reporter.note(f"written: {folder}/index.html, {folder}/report.json")
    if stop.received is not None:
        text = f"stopped by signal {stop.received}; {folder} tells of what was looked at until then"
        raise Interrupted(text, 128 + stop.received)
    if report.errors:
        shown = [f"{d.dataset}: {d.kind}: {d.file} {d.detail}" for d in report.errors[:5]]
        more = [f"and {len(report.errors) - 5} more"] if len(report.errors) > 5 else []
        raise UserError("\n".join([f"{len(report.errors)} errors in the data:", *shown, *more]))


def main() -> None:
    """``python inspect_data.py data=gta2city``."""
    start("inspect_data", inspect_data)
