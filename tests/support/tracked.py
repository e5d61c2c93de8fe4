"""Run and sweep directories as training leaves them, made without training."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow

from recyclelora.config.compose import to_yaml
from recyclelora.runs.metrics_log import MetricsLog
from recyclelora.sweep.ledger import SEARCH, Ledger

POINTS = ((1, 0.5), (2, 0.25))
STARTED = "2026-01-02T03:04:05+0000"


def run_files(path: Path, config, points=POINTS, finished: bool = True) -> Path:
    """A run's directory at ``path``."""
    (path / "figures").mkdir(parents=True)
    (path / "config.yaml").write_text(to_yaml(config))
    about = {
        "command": "train.py adapter=x", "signature": path.name[-1] * 16, "protocol": "whole", "started": STARTED,
        "git": {"commit": "abc", "diff": ""}, "host": {"slurm_job": "71"}, "resumed": [], "dataset_digest": "d" * 64,
        "datasets": [
            {"role": role, "name": name, "dataset": dataset, "split": split, "images": 12, "labelled": True}
            for role, name, dataset, split in (
                ("source", "gta", "gta", "train"), ("source_val", "gta", "gta", "held_out"),
                ("target", "cityscapes", "cityscapes", "val"))
        ],
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(about))
    if finished:
        finish(path)
    (path / "figures/overview.png").write_bytes(b"png")
    for step, loss in points:
        MetricsLog(path / "metrics.jsonl").append(step, {"loss_ce": loss, "miou/day": loss / 2})
    return path


def finish(path: Path) -> None:
    """The result of a run of two steps."""
    params = {"backbone_trainable": 10, "decoder": 20, "total": 100}
    result = {"objective": 0.375, "seconds": 8.0, "peak_memory_mb": 512, "steps": 2, "params": params}
    (path / "result.json").write_text(json.dumps(result))


def finished_run(config, name: str = "run0", **how) -> Path:
    """A run below the outputs of a configuration."""
    return run_files(Path(config.output_dir) / "runs" / name, config, **how)


def trial(
    sweep: Path, number: int, state: str, value: float | None = None, kind: str = SEARCH, params=None, reason=None
) -> Path:
    """The ledger's folder of one trial."""
    params = params or {"adapter.main.rank": 2 + number}
    trial = Ledger(sweep).add(number, params, [f"{k}={v}" for k, v in params.items()], [[]], {}, kind)
    trial.state, trial.values, trial.reason = state, None if value is None else [value], reason
    trial.finished = f"2026-01-02T04:0{number}:00+00:00" if trial.ended else None
    trial.save_state()
    return trial.folder


def outcome(ledger: Path, status: str, run_dir: Path, reason: str | None = None) -> None:
    """What the job of a trial's only unit said last."""
    said = {"attempt": 1, "status": status, "reason": reason, "run_dir": f"{run_dir.relative_to(ledger.parents[1])}"}
    (ledger / "unit_0/outcome.json").write_text(json.dumps(said))


def client_of(config) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{Path(config.output_dir).absolute() / 'mlflow.db'}")


def history(client, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run_id, name)]
