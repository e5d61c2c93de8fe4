"""Run directories and ledgers as training and the sweep leave them, without training."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.metrics import iou, mean_iou
from recyclelora.sweep.ledger import SEARCH, Ledger

CLASSES = ["road", "sky", "car"]
TARGETS = ("day", "night")
NUM_IMAGES = 12


@functools.cache
def base_config() -> str:
    """A run's ``config.yaml``: the shipped defaults."""
    from conftest import compose_config

    from recyclelora.config.compose import to_yaml

    return to_yaml(compose_config(Path("/nowhere"), "backbone=vit_tiny_test", "decoder=linear", "data=streets"))


def matrices(quality: float, name: str, images: int = NUM_IMAGES) -> np.ndarray:
    """Confusion matrices of images (images, 3, 3): the same truth for a set's name, ``quality`` of it right."""
    truth = np.random.default_rng(len(name)).integers(50, 1000, (images, 3))
    right = np.round(truth * quality).astype(int)
    found = np.zeros((images, 3, 3), int)
    for k in range(3):
        found[:, k, k] = right[:, k]
        found[:, k, (k + 1) % 3] = truth[:, k] - right[:, k]
    return found


def calibration_sums(matrix: np.ndarray) -> np.ndarray:
    """As if the model had been sure of everything by 90 %: (3 * 15,) of an image."""
    sums = np.zeros((3, 15))
    sums[:, 13] = matrix.sum(), 0.9 * matrix.sum(), np.trace(matrix)
    return sums.ravel()


def write_run(
    path: Path,
    seed: int = 0,
    quality: float = 0.7,
    changes: dict[str, Any] | None = None,
    *,
    finished: bool = True,
    images: bool = False,
    objective: str = "source_val",
    **result: Any,
) -> Path:
    """One run directory; the higher its ``quality`` the higher its scores.

    Args:
        changes: ``section.key`` -> value in the configuration
        images: whether the counts of single images are kept
        result: what is replaced in ``result.json``
    """
    config = copy.deepcopy(yaml.load(base_config(), yaml.CSafeLoader))
    for key, value in {"seed": seed, **(changes or {})}.items():
        *parents, leaf = key.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False))
    about = {"signature": "0" * 16, "command": "train.py -m adapter=a,b seed=0,1", "precision": "32-true",
             "world_size": 1, "dataset_digest": "d" * 64, "weights_sha256": None, "init_sha256": None}  # fmt: skip
    (path / "run.json").write_text(json.dumps(about))
    (path / "train.log").write_text("12:00:00 a line\n")
    points = [{"step": step, "time": 0.0, "loss_ce": 1 / step} for step in (5, 10)]
    points += [{"step": step, "time": 0.0, "miou/source_val": quality * step / 10} for step in (5, 10)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points) + '{"step": 1')
    if finished:
        counts = {name: matrices(quality, name) for name in (*TARGETS, "source_val")}
        rows = {name: iou(found.sum(0)).tolist() for name, found in counts.items()}
        scores = {name: mean_iou(np.array(row)) for name, row in rows.items()}
        mean = (scores["day"] + scores["night"]) / 2
        summary = {"targets": {n: scores[n] for n in TARGETS}, "mean": mean, "source_val": scores["source_val"]}
        chosen = {"last": {**summary, "step": 10}, "best_source": {**summary, "step": 10},
                  "best_target": {**summary, "mean": mean + 0.01, "step": 5}}  # fmt: skip
        (path / "result.json").write_text(json.dumps({
            "status": "finished", "miou": summary, "selection": chosen, "iou_per_class": rows, "classes": CLASSES,
            "source_classes": None, "objective": mean if objective == "target_mean" else scores["source_val"],
            "objective_name": objective, "protocol": "whole", "steps": 10, "seconds": 100.0,
            "params": {"backbone_trainable": 1000, "decoder": 500, "total": 22000}, "peak_memory_mb": 2048.0,
            "signature": hashlib.sha256(str(path).encode()).hexdigest()[:16], "seed": seed, "git": None,
            "dataset_digest": "d" * 64, "weights_sha256": None, **result,
        }))  # fmt: skip
        for name in TARGETS if images else ():
            kept = ImageCounts(3)
            for matrix in counts[name]:
                kept.add(matrix, {"calibration": calibration_sums(matrix)})
            kept.save(path / "evaluations/images/10" / f"{name}.safetensors")
    return path


def run_name(number: int, kind: str = "trial") -> str:
    return f"{kind}_{number:04d}-{hashlib.sha256(f'{kind}{number}'.encode()).hexdigest()[:16]}"


def write_study(sweep: Path, **about: Any) -> Path:
    """``study.json`` of the ledger."""
    sweep.mkdir(parents=True, exist_ok=True)
    known = {"name": sweep.name, "directions": ["maximize"], "objectives": ["source_val"], "tuned_on_targets": False,
             "command": "train.py -m sweeps=mine hydra/launcher=slurm", "n_trials": 5,
             "created": "2026-05-01T12:00:00+0000"}  # fmt: skip
    (sweep / "study.json").write_text(json.dumps(known | about))
    return sweep


def write_trial(
    sweep: Path,
    number: int,
    params: dict[str, Any],
    state: str = "complete",
    *,
    values: list[float] | None = None,
    distributions: dict[str, str] | None = None,
    reason: str | None = None,
    kind: str = SEARCH,
    run_dirs: tuple[str, ...] = (),
) -> Path:
    """One folder of the ledger, one unit a run."""
    units = [[f"seed={index}"] for index in range(max(1, len(run_dirs)))]
    asked = [f"{key}={value}" for key, value in params.items()]
    trial = Ledger(sweep).add(number, params, asked, units, distributions or {}, kind)
    trial.state, trial.values, trial.reason = state, values, reason
    trial.save_state()
    for index in range(len(units)):
        folder = trial.unit_folder(index)
        (folder / "log.txt").write_text("what it printed\n")
        if trial.ended:
            run_dir = run_dirs[index] if index < len(run_dirs) else None
            outcome = {"attempt": 1, "status": state, "values": values, "reason": reason, "run_dir": run_dir}
            (folder / "outcome.json").write_text(json.dumps(outcome))
    return trial.folder


def large_sweep(sweep: Path, count: int = 200) -> Path:
    """An Optuna search over ranks, learning rate and initialisation, with failed, pruned and running trials."""
    from optuna import distributions as d

    space = {
        "adapter.main.rank": d.CategoricalDistribution((8, 16, 24, 32, 48)),
        "adapter.sub.rank": d.CategoricalDistribution((2, 4, 8, 16)),
        "optimizer.lr": d.FloatDistribution(1e-5, 1e-2, log=True),
        "adapter.main.init": d.CategoricalDistribution(("rrqr_minor", "svd_minor")),
    }
    texts = {name: d.distribution_to_json(one) for name, one in space.items()}
    write_study(sweep)
    rng = np.random.default_rng(0)
    for number in range(count):
        params = {
            "adapter.main.rank": int(rng.choice([8, 16, 24, 32, 48])),
            "adapter.sub.rank": int(rng.choice([2, 4, 8, 16])),
            "optimizer.lr": float(10 ** rng.uniform(-5, -2)),
            "adapter.main.init": str(rng.choice(["rrqr_minor", "svd_minor"])),
        }
        quality = 0.75 - 0.08 * (np.log10(params["optimizer.lr"]) + 3.5) ** 2 + 0.001 * params["adapter.main.rank"]
        quality += rng.normal(0, 0.01)
        name = run_name(number)
        state = {17: "failed", 23: "pruned", 40: "failed"}.get(number, "running" if number >= count - 2 else "complete")
        reason = {"failed": "OutOfMemoryError: CUDA out of memory", "pruned": "median of step 5"}.get(state)
        write_run(sweep / name, 0, quality, params, finished=state == "complete", images=True)
        value = None
        if state == "complete":
            value = json.loads((sweep / name / "result.json").read_text())["objective"]
        values = None if value is None else [value]
        write_trial(sweep, number, params, state, values=values, distributions=texts, reason=reason, run_dirs=(name,))
    return sweep
