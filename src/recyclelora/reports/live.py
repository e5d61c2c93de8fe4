"""The page of a sweep while it runs, and the list of studies and runs beside it; written by a process of its own.

It reads what is on disk and writes two files, each at once: ``<sweep>/report.html`` and, for a sweep in
``<outputs>/sweeps``, ``<outputs>/index.html``. The driver does not wait for it, and what goes wrong here does not reach
the driver.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from recyclelora.system.side_process import SideProcess

FIRST = 30.0
"""Seconds after which a sweep gets a page: shorter ones are over before anybody looks."""
LEAST = 30.0
"""Seconds between two pages."""
SHARE = 20.0
"""And so many times as long as the last one took: at most a twentieth of one core."""
LOG = "live.log"
PAGE = "report.html"


@contextlib.contextmanager
def watched(sweep: Path, first: float = FIRST) -> Iterator[None]:
    """Keep a sweep's page fresh while the block runs, if it runs for longer than ``first`` seconds."""
    begun: list[SideProcess] = []

    def begin() -> None:
        with contextlib.suppress(OSError):  # such as a full disk: the sweep itself goes on
            begun.append(SideProcess(["recyclelora.reports", str(sweep)], sweep / LOG))

    timer = threading.Timer(first, begin)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        for process in begun:
            process.hang_up()  # it writes the last page, and nobody waits for that


def follow(sweep: Path) -> None:
    """Write the page again and again until standard input closes, then once more."""
    os.nice(19)
    seen, pause, ended = -1.0, 0.0, False
    while not ended:
        ended = bool(select.select([sys.stdin], [], [], pause)[0])
        newest = _newest(sweep)
        if newest == seen and not ended:
            continue
        began = time.monotonic()
        try:
            refresh(sweep, running=not ended)
        except Exception as error:  # whatever is half written now is whole at the next look
            print(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}", flush=True)
        seen, pause = newest, max(LEAST, SHARE * (time.monotonic() - began))


def _newest(sweep: Path) -> float:
    """When a trial of the sweep last changed."""
    times = [0.0]
    for path in sweep.glob("ledger/*/*"):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def refresh(sweep: Path, *, running: bool) -> None:
    """Write the page as things stand, and the list of studies."""
    from recyclelora.reports.charts import draw
    from recyclelora.reports.comparison import compare
    from recyclelora.reports.index import write_index
    from recyclelora.reports.page import write_page
    from recyclelora.reports.records import read_sweep
    from recyclelora.reports.standing import read_standing
    from recyclelora.system.storage import write_text

    comparison = compare(read_sweep(sweep), "last", None, 0)
    with tempfile.TemporaryDirectory() as folder:
        charts = draw(comparison, Path(folder))
    standing = read_standing(sweep, seconds=round(LEAST)) if running else None
    write_text(sweep / PAGE, write_page(comparison, charts, 0, standing))
    if sweep.parent.name == "sweeps":
        write_index(sweep.parent.parent)
