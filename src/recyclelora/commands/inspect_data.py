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

from recyclelora.commands import start
from recyclelora.config.commands import InspectConfig
from recyclelora.system.imports import quick_imports


def inspect_data(config: InspectConfig, trial: int | None = None) -> None:
    """Scan all sources and targets; write ``report.json`` and ``index.html`` to ``<output_dir>/inspect/<data>``."""
    with quick_imports():
        from recyclelora.reports.inspection.writing import inspect_pair
        from recyclelora.system.next_steps import given, next_steps, typed_as
        from recyclelora.system.progress import Reporter

    reporter = Reporter()
    inspect_pair(config.data, config.cache, Path(config.output_dir), config.num_workers, reporter, config.num_samples)
    small = ["experiment=finetune_small"] if {c.dataset for c in config.data.sources} == {"folder"} else []
    reporter.note(next_steps(("train", typed_as("train", *given("data"), *small))))


def main() -> None:
    """``python inspect_data.py data=gta2city``."""
    start("inspect_data", inspect_data)
