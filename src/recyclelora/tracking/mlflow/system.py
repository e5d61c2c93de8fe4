"""How busy the machine is while a run trains, as MLflow measures it; sampled by the feeder, beside training."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from recyclelora.runs.metrics_log import MetricsLog
from recyclelora.tracking.mlflow.outbox import points_of

SYSTEM = "system.jsonl"
EVERY = 10.0
"""Seconds between samples, as MLflow's own."""


class SystemSampler:
    """Appends ``system/...`` points (CPU, memory, disk, network and GPUs) to ``system.jsonl``; steps count samples."""

    def __init__(self, run_dir: Path) -> None:
        path = run_dir / SYSTEM
        self.log = MetricsLog(path)
        self.step = max((step for *_, step in points_of(path)), default=-1) + 1
        self.monitors = _monitors()
        self.due = time.monotonic()

    def sample_when_due(self) -> None:
        """Write one sample if it is time; the first one at once."""
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + EVERY
        values: dict[str, float] = {}
        for monitor in self.monitors:
            monitor.collect_metrics()
            values |= {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        self.log.append(self.step, values)
        self.step += 1


def _monitors() -> list[Any]:
    """MLflow's monitors; those of GPUs where there are any and their library is installed."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    monitors = []
    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor, ROCMMonitor]
    for kind in kinds:
        try:
            monitors.append(kind())
        except Exception:  # noqa: S112  no such GPU, or no library for it: MLflow raises anything
            continue
    return monitors
