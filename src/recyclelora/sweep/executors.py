"""Which executor a launcher's options stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recyclelora.sweep.execution import Executor
from recyclelora.sweep.task import HydraTask

LOCAL = "hydra_plugins.recyclelora_sweeper.launchers.LocalLauncher"


def make_executor(
    launcher: Mapping[str, Any], task: HydraTask, objectives: Sequence[str] | None, sweep: Path, n_jobs: int,
    study: str,
) -> Executor | None:  # fmt: skip
    """The executor of a launcher; None for a launcher that this project does not know."""
    if launcher.get("_target_") != LOCAL:
        return None
    from recyclelora.sweep.local import LocalExecutor

    preload: tuple[str, ...] = getattr(task.function, "preload", ())
    collect = not preload
    return LocalExecutor(
        task, objectives, n_jobs, timeout_min=launcher.get("timeout_min"), preload=preload, collect=collect
    )
