"""Figure 6: what a failing MLflow server costs training, and which points it loses or doubles.

    python benchmarks/reliability/tracking.py [--steps 300] [--repeats 3] [--patience 300] [--modes healthy flaky ...]

A loop of small matrix products stands for training and logs five metrics a step. It runs with files alone, with this
project's feeder, and with MLflow's own client (``mlflow.log_metrics``, synchronous and asynchronous, everything at its
defaults), each in a process of its own, in turns, through a proxy before a real MLflow server: healthy, failing in
seeded ways, answering every write with 503 for a third of the run, or absent for all of it. Afterwards the server is
healthy, ``sync`` sends the rest, and the points are counted behind the proxy. MLflow's client has no such command.
A last mode, ``absent_long``, is a run of twenty times as many steps with files and feeder alone: the feeder costs once,
when it starts, which says little about a slowdown where a run takes seconds. Writes ``tracking.json`` beside this
script, of which it replaces the modes that were measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
from faulty_proxy import FaultyProxy

from recyclelora.config.compose import composed, to_yaml
from recyclelora.runs.metrics_log import MetricsLog
from recyclelora.system.storage import write_json, write_text
from recyclelora.tracking.process import followed

WAYS = ("files", "here", "mlflow_sync", "mlflow_async")
MODES = ("healthy", "flaky", "full", "absent", "absent_long")
LONG = 20
METRICS = ("loss", "lr", "grad_norm", "miou/day", "miou/night")
EXPERIMENT = "campaign"


# --- the process that trains ------------------------------------------------------------------------------------------


def train(way: str, run_dir: Path, url: str, steps: int) -> dict[str, float]:
    """Train and log; seconds until the first step, of wall and of the training thread for all steps, and to the end."""
    log = MetricsLog(run_dir / "metrics.jsonl")
    matrix = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    if way.startswith("mlflow"):
        import mlflow

    def loop(record) -> tuple[float, float, float]:
        first, cpu = time.perf_counter(), time.thread_time()
        for step in range(1, steps + 1):
            product = matrix
            for _ in range(20):
                product = np.tanh(product @ matrix / 256)
            (run_dir / "step").write_text(str(step))
            record(step, {name: float(product[0, k]) for k, name in enumerate(METRICS)})
        return first, time.perf_counter(), time.thread_time() - cpu

    began = time.perf_counter()
    if way in ("files", "here"):
        with followed(run_dir, ["mlflow"] if way == "here" else [], url):
            first, last, cpu = loop(log.append)
    else:
        mlflow.set_tracking_uri(url)
        mlflow.set_experiment(EXPERIMENT)
        with mlflow.start_run(run_name=run_dir.name):
            first, last, cpu = loop(lambda s, v: mlflow.log_metrics(v, s, synchronous=way == "mlflow_sync"))
    ended = time.perf_counter()
    return {"start": first - began, "wall": last - first, "cpu": cpu, "end": ended - last}


# --- the campaign -----------------------------------------------------------------------------------------------------


def new_run(folder: Path, name: str, url: str) -> Path:
    """The directory of a run that is about to train."""
    config = composed("train")
    config.output_dir, config.tracking.uri, config.tracking.experiment = str(folder), url, EXPERIMENT
    path = folder / "runs" / name
    path.mkdir(parents=True)
    write_text(path / "config.yaml", to_yaml(config))
    about = {"command": "train.py", "signature": "0" * 16, "protocol": "none", "started": None}
    write_json(path / "run.json", about | {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    return path


def once(way: str, mode: str, folder: Path, server: int, arguments: argparse.Namespace, seed: int) -> dict:
    """One run through its own proxy, and what became of its points."""
    steps = arguments.steps * (LONG if mode == "absent_long" else 1)
    met = {"full": "healthy", "absent_long": "absent"}.get(mode, mode)
    proxy = FaultyProxy(server, met, rate=0.4, delay=0.2, seed=seed)
    name = f"{way}-{mode}-{seed}"
    run_dir = new_run(folder, name, proxy.url)
    began = time.perf_counter()
    command = [sys.executable, __file__, "--train", way, str(run_dir), proxy.url, "--steps", str(steps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if mode == "full":
        threading.Thread(target=fill, args=(proxy, run_dir, steps, process), daemon=True).start()
    try:
        out, error = process.communicate(timeout=arguments.patience)
        measured = (
            json.loads(out.splitlines()[-1]) if process.returncode == 0 else {"error": error.splitlines()[-1][:200]}
        )
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        measured = {"error": f"not done after {arguments.patience} s"}
    measured["seconds"] = round(time.perf_counter() - began, 1)
    reached = int((run_dir / "step").read_text()) if (run_dir / "step").exists() else 0
    proxy.mode = "healthy"
    if way == "here":
        sync = [sys.executable, "-m", "recyclelora.tracking", "sync", "--to", proxy.url, str(run_dir)]
        subprocess.run(sync, check=True, capture_output=True, timeout=300)
    proxy.close()
    return measured | {"steps": reached, "faults": dict(proxy.met)} | points(way, run_dir, server, reached)


def fill(proxy: FaultyProxy, run_dir: Path, steps: int, process: subprocess.Popen) -> None:
    """Let the server be full for the middle third of the run."""
    while process.poll() is None:
        step = run_dir / "step"
        reached = int(step.read_text() or 0) if step.exists() else 0
        proxy.mode = "full" if steps < 3 * reached < 2 * steps else "healthy"
        time.sleep(0.05)


def points(way: str, run_dir: Path, server: int, steps: int) -> dict[str, int]:
    """Points of the steps done that the server lacks, and points that it has more than once."""
    if way == "files":
        return {}
    import mlflow

    client = mlflow.MlflowClient(f"http://127.0.0.1:{server}")
    if way == "here":
        runs = [json.loads((run_dir / "mlflow.json").read_text())["run_id"]]
    else:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        wanted = f"tags.mlflow.runName = '{run_dir.name}'"
        found = client.search_runs([experiment.experiment_id], wanted) if experiment else []
        runs = [run.info.run_id for run in found]
    counts = Counter((n, m.step) for run in runs for n in METRICS for m in client.get_metric_history(run, n))
    lost = sum(counts[name, step] == 0 for name in METRICS for step in range(1, steps + 1))
    return {"lost": lost, "doubled": sum(count > 1 for count in counts.values()), "runs": len(runs)}


def start_server(folder: Path) -> tuple[subprocess.Popen, int]:
    """A real MLflow server on SQLite."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    folder.mkdir()
    with (folder / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "recyclelora.tracking", "ui", str(folder), "--port", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
            return process, port
        except OSError:
            time.sleep(0.3)


def summary(found: list[dict], bare: list[dict]) -> dict:
    """Medians over the repeats; slowdown against files alone in the same mode and repeat."""
    measured = [(f, b) for f, b in zip(found, bare, strict=True) if "wall" in f]
    rows: dict = {
        "failed": [f"{f['error']} ({f['seconds']} s, {f['steps']} steps done)" for f in found if "error" in f]
    }
    if measured:
        median = statistics.median
        rows["start_delay_s"] = round(median(f["start"] for f, _ in measured), 3)
        rows["end_delay_s"] = round(median(f["end"] for f, _ in measured), 2)
        rows["training_s"] = round(median(b["wall"] for _, b in measured), 1)
        rows["slowdown_wall_s"] = round(median(f["wall"] - b["wall"] for f, b in measured), 2)
        rows["slowdown_wall_percent"] = round(100 * median(f["wall"] / b["wall"] - 1 for f, b in measured), 1)
        rows["slowdown_cpu_percent"] = round(100 * median(f["cpu"] / b["cpu"] - 1 for f, b in measured), 1)
    for name in ("lost", "doubled"):
        if name in found[0]:
            rows[f"points_{name}"] = sum(f[name] for f in found)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patience", type=int, default=300, help="seconds after which a run is given up")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--train", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        way, run_dir, url = arguments.train
        print(json.dumps(train(way, Path(run_dir), url, arguments.steps)))
        return
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    found: dict[tuple[str, str], list[dict]] = {
        (mode, way): [] for mode in arguments.modes for way in (WAYS[:2] if mode == "absent_long" else WAYS)
    }
    with tempfile.TemporaryDirectory() as folder:
        process, port = start_server(Path(folder) / "server")
        try:
            for repeat in range(arguments.repeats):
                for mode, way in found:
                    given_up = found[mode, way] and "not done" in found[mode, way][0].get("error", "")
                    if given_up:  # the same minutes of waiting again would tell nothing
                        found[mode, way].append(found[mode, way][0])
                        continue
                    row = once(way, mode, Path(folder), port, arguments, repeat)
                    found[mode, way].append(row)
                    print(mode, way, json.dumps(row), flush=True)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)
    path = Path(__file__).with_suffix(".json")
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    for mode in arguments.modes:
        ways = [way for m, way in found if m == mode and way != "files"]
        results[mode] = {way: summary(found[mode, way], found[mode, "files"]) for way in ways}
    result = {
        "steps": arguments.steps, "metrics": len(METRICS), "repeats": arguments.repeats,
        "patience_s": arguments.patience,
        "load_average": os.getloadavg(), "cpus": os.cpu_count(), "python": platform.python_version(),
        "results": results,
    }  # fmt: skip
    write_json(path, result)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
