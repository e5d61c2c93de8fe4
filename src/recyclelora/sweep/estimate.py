"""How long a sweep will take, from what like runs have taken here."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST = 500
"""Runs that are looked at, the latest first."""


def seconds_of_like_runs(outputs: Path, config: Mapping[str, Any]) -> list[float]:
    """Seconds of finished runs below ``outputs`` of the same backbone, decoder, data and number of steps.

    Args:
        outputs: the folder of all runs and sweeps
        config: the composed configuration, as plain values
    """
    wanted = {name: config.get(name, {}).get("name") for name in ("backbone", "decoder", "data")}
    steps = config.get("trainer", {}).get("max_steps")
    results = [*outputs.glob("runs/*/result.json"), *outputs.glob("sweeps/*/*/**/result.json")]
    found = []
    for path in sorted(results, key=lambda p: p.stat().st_mtime, reverse=True)[:MOST]:
        try:
            result, about = json.loads(path.read_text()), json.loads((path.parent / "run.json").read_text())
        except (OSError, ValueError):
            continue
        if result.get("steps") == steps and all(about.get(name) == value for name, value in wanted.items()):
            found.append(float(result["seconds"]))
    return found


def in_words(outputs: Path, config: Mapping[str, Any], runs: int, limit_min: float | None, at_a_time: int) -> str:
    """An estimate of how long the runs take, or an upper bound, or the admission that there is none."""
    known = seconds_of_like_runs(outputs, config)
    if known:
        each = statistics.median(known)
        took = f"{_time(each)}, the median of {len(known)} like runs here"
        return f"about {_together(each, runs, at_a_time)}: {runs} runs of {took}"
    if limit_min is not None:
        return f"at most {_together(60 * limit_min, runs, at_a_time)}: {runs} runs within timeout_min={limit_min:g}"
    return f"{runs} runs; how long they take is not known here yet: no like run has finished"


def _together(each: float, runs: int, at_a_time: int) -> str:
    if at_a_time == 1:
        return _time(runs * each)
    return f"{_time(math.ceil(runs / at_a_time) * each)}, {at_a_time} at a time ({_time(runs * each)} of runs)"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
