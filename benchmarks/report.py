"""How long a report of a sweep of 200 trials takes: ``python benchmarks/report.py``.

The sweep is made of synthetic run directories and a ledger, as the tests make them: 195 finished trials of four
parameters with the counts of single images, failed, pruned and running ones. Seconds of CPU, since other work on the
machine does not change them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "tests" / "reports")]


def main() -> None:
    from recyclelora.config.commands import ReportConfig
    from recyclelora.system.progress import Reporter
    from sweeps import large_sweep

    with tempfile.TemporaryDirectory() as folder:
        sweep = large_sweep(Path(folder) / "large", 200)
        cpu, wall = time.process_time(), time.perf_counter()
        from recyclelora.reports.writing import write_report

        write_report(ReportConfig(sweep=str(sweep)), Reporter(enabled=False))
        result = {
            "trials": 200,
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "wall_seconds": round(time.perf_counter() - wall, 1),
            "page_bytes": (sweep / "report" / "report.html").stat().st_size,
        }
    text = json.dumps(result, indent=2)
    print(text)
    (HERE / "report.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
