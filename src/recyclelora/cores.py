"""How many processors there are for this process."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Those it may use (a container or SLURM may grant fewer than the machine has; macOS does not tell)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
