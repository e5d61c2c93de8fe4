"""MLflow as a view of the run directory.

Training only appends to ``metrics.jsonl`` and writes files. A process of its own mirrors them into MLflow: a server
that is slow, gone or broken can neither delay nor stop a run, and ``python -m recyclelora.tracking sync <run dir>``
sends later whatever is missing. This is the only room that knows MLflow.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recyclelora.config import load_config, to_yaml
from recyclelora.metrics_log import step_of
from recyclelora.redaction import redacted
from recyclelora.storage import read_json, write_json

STATE = "mlflow.json"
POLL_SECONDS = 2.0
BATCH = 1000
LONGEST_PARAM = 5000
"""Characters; MLflow refuses parameters of more than 6000."""
ARTIFACTS = ("config.yaml", "run.json", "result.json", "train.log")
ARTIFACT_PATTERNS = ("figures/*.png", "analysis/*.png", "analysis/*.csv", "analysis/summary.json")


# --- the training side ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mirrored(run_dir: Path, enabled: bool) -> Iterator[Mirror | None]:
    """Mirror a run into MLflow while the block runs and wait a bounded time for the rest."""
    if not enabled:
        yield None
        return
    mirror = Mirror(run_dir)
    try:
        yield mirror
    finally:
        mirror.finish()


class Mirror:
    """The mirroring process of one run."""

    def __init__(self, run_dir: Path) -> None:
        self.sent = False
        with (run_dir / "mlflow.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "recyclelora.tracking", "follow", str(run_dir)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def finish(self, timeout: float = 60.0) -> bool:
        """Tell the process that nothing more comes; False when it has not sent everything in time."""
        if self.process.stdin is not None:
            self.process.stdin.close()  # also closed by the kernel when training is killed
        try:
            self.sent = self.process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.sent = False
        return self.sent


def send(run_dir: Path, timeout: float = 60.0) -> str | None:
    """Bring the record of a finished run up to date, from a process of its own; None, or why that failed."""
    command = [sys.executable, "-m", "recyclelora.tracking", "sync", str(run_dir)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["unknown reason"])[-1]


# --- the mirroring side -----------------------------------------------------------------------------------------------


def follow(run_dir: Path) -> bool:
    """Send again and again until standard input closes, then once more; True when everything was sent."""
    os.set_blocking(sys.stdin.fileno(), False)
    while sys.stdin.buffer.read(1) != b"":
        _try_sync(run_dir, training=True)
        time.sleep(POLL_SECONDS)
    return _try_sync(run_dir, training=False)


def _try_sync(run_dir: Path, *, training: bool) -> bool:
    try:
        sync(run_dir, training=training)
    except Exception as error:  # whatever a server or database does, training must not notice
        print(f"{time.strftime('%H:%M:%S')} not sent yet: {type(error).__name__}: {redacted(str(error))}", flush=True)
        return False
    return True


def sync(run_dir: Path, *, training: bool = False) -> str:
    """Send what MLflow does not have yet of a run; calling it twice sends nothing twice.

    Args:
        run_dir: the run
        training: whether it still trains; a run that neither trains nor has a result was killed

    Returns:
        the MLflow run id.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    import mlflow

    config = load_config(run_dir / "config.yaml")
    run_dir = run_dir.absolute()
    outputs = run_dir.parents[1 if run_dir.parent.name == "runs" else 2]  # right also where the folder was moved
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{outputs / 'mlflow.db'}"
    with _one_at_a_time(outputs):  # a database whose schema is created twice at once is broken for good
        client = mlflow.MlflowClient(tracking_uri=uri)  # creates the schema
        state = _stored_state(run_dir, uri)
        if state["run_id"] is None:
            state["run_id"] = _create_run(client, run_dir, config, outputs, local=uri.startswith("sqlite"))
            write_json(run_dir / STATE, state)
    if not state["params_sent"]:
        _send_params(client, state["run_id"], config)
        state["params_sent"] = True
        write_json(run_dir / STATE, state)
    _send_metrics(client, run_dir, state)
    _send_analysis(client, run_dir, state)
    _send_files(client, run_dir, state)
    finished = (run_dir / "result.json").exists()
    _set_status(client, state["run_id"], "FINISHED" if finished else "RUNNING" if training else "KILLED")
    return str(state["run_id"])


def _create_run(client: Any, run_dir: Path, config: Any, outputs: Path, *, local: bool) -> str:
    about = read_json(run_dir / "run.json")
    experiment = _experiment(client, config, outputs, local)
    git = about.get("git") or {}
    tags = {
        "mlflow.runName": run_name(config),
        "mlflow.note.content": f"`{about['command']}`",
        "mlflow.source.git.commit": git.get("commit") or "unknown",
        "signature": about["signature"],
        "protocol": about["protocol"],
        "run_dir": str(run_dir),
    }
    if config.study is not None:
        tags["mlflow.parentRunId"] = _parent(client, experiment, config.study)
    return str(client.create_run(experiment, tags=tags).info.run_id)


def _stored_state(run_dir: Path, uri: str) -> dict[str, Any]:
    """What this store is known to have of the run; nothing for a store it was never sent to."""
    fresh: dict[str, Any] = {"uri": uri, "run_id": None, "params_sent": False, "steps": {}, "files": {}}
    stored: dict[str, Any] = read_json(run_dir / STATE) if (run_dir / STATE).exists() else fresh
    return stored if stored["uri"] == uri else fresh


def _send_params(client: Any, run_id: str, config: Any) -> None:
    from mlflow.entities import Param

    params = [Param(key, str(value)) for key, value in flat_parameters(config).items()]
    for first in range(0, len(params), 100):
        client.log_batch(run_id, params=params[first : first + 100])


def run_name(config: Any) -> str:
    """A name that tells runs of one experiment apart at a glance."""
    ranks = [b.rank for b in (getattr(config.adapter, "main", None), getattr(config.adapter, "sub", None)) if b]
    adapter = "-".join([config.adapter.name, "+".join(map(str, ranks))]).rstrip("-")
    return f"{adapter} {config.backbone.name} {config.data.name} seed {config.seed}"


def flat_parameters(config: Any) -> dict[str, Any]:
    """Dotted names of every value a researcher may want to compare or filter by."""
    from omegaconf import OmegaConf

    flat: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = node

    walk(OmegaConf.to_container(OmegaConf.create(to_yaml(config))), "")
    skipped = ("output_dir", "cache", "fresh", "study", "data.classes", "data.folder", "tracking")
    names = config.data.classes.names
    classes = {"data.num_classes": len(names), "data.class_names": ", ".join(names)[:LONGEST_PARAM]}
    return {key: value for key, value in flat.items() if not key.startswith(skipped)} | classes


def _experiment(client: Any, config: Any, outputs: Path, local: bool) -> str:
    name = config.tracking.experiment or config.study or config.data.name
    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    location = (outputs / "mlartifacts" / name).as_uri() if local else None
    # else MLflow 3 opens an experiment with its pages for language-model traces
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=location, tags=kind))


def _parent(client: Any, experiment: str, study: str) -> str:
    """The run that stands for a whole sweep; created by the first of its trials."""
    found = client.search_runs([experiment], f"tags.study = '{study}' and tags.role = 'sweep'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {"mlflow.runName": f"sweep {study}", "study": study, "role": "sweep"}
    run_id: str = client.create_run(experiment, tags=tags).info.run_id
    client.set_terminated(run_id)
    return run_id


def _send_metrics(client: Any, run_dir: Path, state: dict[str, Any]) -> None:
    """Send the points later than the last one sent of each name, in batches, and remember after each batch."""
    from mlflow.entities import Metric

    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return
    waiting = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if step_of(line) == float("inf"):
            continue  # being written
        point = json.loads(line)
        step, stamp = int(point.pop("step")), int(1000 * point.pop("time"))
        waiting += [Metric(k, v, stamp, step) for k, v in point.items() if step > state["steps"].get(k, -1)]
    for first in range(0, len(waiting), BATCH):
        batch = waiting[first : first + BATCH]
        client.log_batch(state["run_id"], metrics=batch)
        state["steps"] |= {metric.key: metric.step for metric in batch}
        write_json(run_dir / STATE, state)


def _send_analysis(client: Any, run_dir: Path, state: dict[str, Any]) -> None:
    """Send the headlines of ``analysis/summary.json`` as metrics ``analysis/...`` when the file is new or changed."""
    from mlflow.entities import Metric

    path = run_dir / "analysis" / "summary.json"
    if not path.exists() or state["files"].get("analysis/summary.json") == path.stat().st_mtime_ns:
        return
    summary = read_json(path)
    stamp, step = int(1000 * path.stat().st_mtime), int(summary["step"])
    metrics = [Metric(f"analysis/{name}", value, stamp, step) for name, value in summary["metrics"].items()]
    for first in range(0, len(metrics), BATCH):
        client.log_batch(state["run_id"], metrics=metrics[first : first + BATCH])


def _send_files(client: Any, run_dir: Path, state: dict[str, Any]) -> None:
    """Send files that are new or changed; those of ``figures`` and ``analysis`` go to artifact folders of that name."""
    found = [path for pattern in ARTIFACT_PATTERNS for path in sorted(run_dir.glob(pattern))]
    for path in [*(run_dir / name for name in ARTIFACTS), *found]:
        if not path.exists():
            continue
        stamp = path.stat().st_mtime_ns
        name = path.relative_to(run_dir).as_posix()
        if state["files"].get(name) != stamp:
            client.log_artifact(state["run_id"], str(path), name.rpartition("/")[0] or None)
            state["files"][name] = stamp
            write_json(run_dir / STATE, state)


def _set_status(client: Any, run_id: str, status: str) -> None:
    if client.get_run(run_id).info.status == status:
        return
    if status == "RUNNING":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status=status)


@contextlib.contextmanager
def _one_at_a_time(outputs: Path) -> Iterator[None]:
    with (outputs / ".mlflow.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """``follow`` a run that trains, or ``sync`` runs that were not sent completely."""
    parser = argparse.ArgumentParser(prog="python -m recyclelora.tracking", description=main.__doc__)
    parser.add_argument("action", choices=("follow", "sync"))
    parser.add_argument("run_dirs", nargs="+", type=Path)
    arguments = parser.parse_args()
    if arguments.action == "follow":
        sys.exit(0 if follow(arguments.run_dirs[0]) else 1)
    failed = False
    for run_dir in arguments.run_dirs:
        try:
            print(f"{run_dir}: MLflow run {sync(run_dir)}")
        except Exception as error:  # a server may fail in any way; the other runs are still to be sent
            failed = True
            print(f"sync: {run_dir}: {redacted(str(error)).splitlines()[0]}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
