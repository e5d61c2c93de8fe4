"""``outputs/index.html``: the studies and runs of a folder, each with a link to its page or its folder."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

from recyclelora.reports.html import rendered
from recyclelora.runs.directory import RESULT
from recyclelora.sweep.ledger import Ledger
from recyclelora.system.errors import UserError
from recyclelora.system.next_steps import as_typed_here
from recyclelora.system.storage import write_text
from recyclelora.system.typed_json import read_object

MOST = 500
"""Runs that are listed, the latest first."""


def write_index(outputs: Path) -> Path:
    """Write it anew from what is there."""
    studies = [_study(path, outputs) for path in _latest(outputs.glob("sweeps/*/study.json"))]
    runs = [_run(path, outputs) for path in _latest(outputs.glob("runs/*/config.yaml"))[:MOST]]
    write_text(outputs / "index.html", rendered("index.html", studies=studies, runs=runs))
    return outputs / "index.html"


def _latest(paths: Any) -> list[Path]:
    """Their folders, the latest first."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):  # removed meanwhile
            found.append((path.stat().st_mtime, path.parent))
    return [folder for _, folder in sorted(found, reverse=True)]


def _study(folder: Path, outputs: Path) -> dict[str, str]:
    states = Counter(trial.state for trial in Ledger(folder).trials())
    page = next((p for p in ("report.html", "report/report.html") if (folder / p).exists()), "")
    command = ""
    with contextlib.suppress(UserError):
        command = as_typed_here(str(read_object(folder / "study.json").get("command", "")))
    return {
        "name": folder.name,
        "link": f"{folder.relative_to(outputs)}/{page}",
        "states": ", ".join(f"{count} {state}" for state, count in states.items()),
        "command": command,
    }


def _run(folder: Path, outputs: Path) -> dict[str, str]:
    score, steps = "", ""
    with contextlib.suppress(UserError):
        if (folder / RESULT).exists():
            result = read_object(folder / RESULT)
            mean = (result.get("miou") or {}).get("mean")
            score, steps = "" if mean is None else f"{100 * mean:.2f}", str(result.get("steps", ""))
    link = f"{folder.relative_to(outputs)}/"
    return {"name": folder.name, "link": link, "score": score, "steps": steps or "not finished"}
