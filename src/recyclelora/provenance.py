"""The identity of a run, its directory, and the record of where it came from."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from recyclelora.config import load_config, to_yaml
from recyclelora.errors import UserError
from recyclelora.records import Time, read_record
from recyclelora.redaction import redacted
from recyclelora.schemas import Config
from recyclelora.schemas.checks import identity_fields
from recyclelora.storage import locked, read_json, remove_leftovers, set_aside, sha256, write_json, write_text
from recyclelora.sweep.unit import Unit

FREE = (
    "output_dir", "cache", "study", "fresh", "tracking", "factor_cache_gib", "data.root", "data.folder.root",
    "data.decode_cache", "trainer.num_workers", "trainer.log_every", "trainer.num_figures", "trainer.checkpoint_every",
    "trainer.eval_window_batch", "trainer.stall_timeout", "data.cityscapes_labels",
)  # fmt: skip
"""Keys that do not change what is computed, except by the files that are read, which are part of the data's digest."""

NOT_IDENTITY = (
    *FREE, "init_from", "backbone.checkpoint", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "trainer.precision",
)  # fmt: skip
"""Keys whose text is not part of the identity; those that are not free enter by content (paths) or resolved."""


class RunRecord(TypedDict):
    """What every reader needs of ``run.json``; there is more in it."""

    signature: str
    command: str
    protocol: NotRequired[str]
    started: NotRequired[Time]
    git: NotRequired[dict[str, Any] | None]
    resumed: NotRequired[list[dict[str, Any]]]
    host: NotRequired[dict[str, Any]]
    datasets: NotRequired[list[dict[str, Any]]]


class TrainedRecord(RunRecord):
    """``run.json`` of a run that can be used."""

    weights_sha256: str | None
    precision: str


class ResultRecord(TypedDict):
    """What every reader needs of ``result.json``; all of it is in ``result.schema.json``."""

    objective: float | None
    seconds: float
    steps: int
    params: dict[str, Any]
    peak_memory_mb: NotRequired[float | None]
    objective_name: NotRequired[str]
    protocol: NotRequired[str]
    seed: NotRequired[int]
    classes: NotRequired[list[str]]
    selection: NotRequired[dict[str, dict[str, Any]]]
    iou_per_class: NotRequired[dict[str, list[float | None]]]


@dataclass(frozen=True)
class Identity:
    """What makes two runs the same run."""

    weights_sha256: str | None
    dataset_digest: str
    precision: str
    world_size: int
    init_sha256: str | None = None
    """of the adapter that ``init_from`` starts from"""


def signature(config: Config, identity: Identity) -> str:
    """First 16 hex digits of the sha256 over the resolved configuration and the content it refers to."""
    fields: dict[str, Any] = identity_fields(config)
    for key in NOT_IDENTITY:
        *parents, leaf = key.split(".")
        node = fields
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(leaf, None)
    text = json.dumps({"config": fields, "identity": dataclasses.asdict(identity)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunDirectory:
    """Where everything of one run is written."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """One folder for each kept checkpoint."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """PNG pictures."""
        return self.path / "figures"

    @property
    def predictions(self) -> Path:
        """One folder for each target without labels."""
        return self.path / "predictions"

    @property
    def image_counts(self) -> Path:
        """``<step>/<set>.safetensors``: the confusion matrix of every single image of a set."""
        return self.path / "evaluations" / "images"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: every point of every curve."""
        return self.path / "metrics.jsonl"

    @property
    def result_path(self) -> Path:
        """Written last: a run with it is finished."""
        return self.path / "result.json"

    def result(self) -> dict[str, Any] | None:
        """The finished result, if there is one."""
        if not self.result_path.exists():
            return None
        result: Any = read_record(self.result_path, ResultRecord)
        return dict(result)


def run_directory(config: Config, identity: Identity, trial: int | None, unit: Unit | None = None) -> RunDirectory:
    """Where a run belongs.

    ``runs/<adapter>-<backbone>-<data>-<signature>``, for a trial of a sweep ``sweeps/<study>/trial_0007-<signature>``,
    with ``seed_<s>`` inside where the trial is repeated; the outer signature leaves the seed out then.
    """
    root = Path(config.output_dir).absolute()
    sign = signature(config, identity)
    if unit is not None:
        sweep = unit.trial.parents[1]
        if unit.repeated:
            shared = signature(dataclasses.replace(config, seed=0), identity)
            return RunDirectory(sweep / f"{unit.run_prefix}-{shared}" / f"seed_{config.seed}")
        return RunDirectory(sweep / f"{unit.run_prefix}-{sign}")
    if trial is not None:
        if config.study is None:
            raise UserError("study: a multirun needs a name: add -m, or study=<name>")
        return RunDirectory(root / "sweeps" / str(config.study) / f"trial_{trial:04d}-{sign}")
    name = f"{config.adapter.name}-{config.backbone.name}-{config.data.name}-{sign}"
    return RunDirectory(root / "runs" / name)


@contextmanager
def claimed(run: RunDirectory, config: Config) -> Iterator[None]:
    """Hold the run's directory: a new one, or the one that belongs to this very configuration.

    Raises:
        UserError: another process holds it, or the stored configuration differs although the signature is the same.
    """
    if config.fresh and run.path.exists():
        with locked(run.path):
            set_aside(run.path)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run.path}: cannot be created: {error.strerror}; set output_dir") from error
    with locked(run.path):
        remove_leftovers(run.path)
        stored = run.path / "config.yaml"
        if not stored.exists():
            write_text(stored, to_yaml(config))
        elif same_but_for_content(load_config(stored)) != same_but_for_content(config):
            raise UserError(
                f"{run.path}: holds a run of another configuration (see config.yaml); use fresh=true to replace it"
            )
        yield


def same_but_for_content(config: Config) -> str:
    """16 hex digits, equal for configurations that are one run wherever weights, data and hardware are the same."""
    nothing = Identity(None, "", "", 0)
    return signature(config, nothing)


def command_line() -> str:
    """The command that this process was started with, without passwords."""
    return redacted(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def describe(config: Config, identity: Identity, sign: str, extra: dict[str, Any], checkout: Path) -> dict[str, Any]:
    """The content of ``run.json``: command, versions, code, host, data, weights and protocol."""
    from recyclelora.hardware import hardware  # imports torch

    return {
        "signature": sign,
        "command": command_line(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "adapter": config.adapter.name,
        "backbone": config.backbone.name,
        "decoder": config.decoder.name,
        "data": config.data.name,
        "seed": config.seed,
        "study": config.study,
        "protocol": config.data.protocol.name,
        **dataclasses.asdict(identity),
        **extra,
        "git": git_state(checkout),
        "code_sha256": code_digest(),
        "versions": {"python": platform.python_version(), **installed_packages()},
        "host": {
            "name": platform.node(),
            "system": platform.platform(),
            **hardware(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
        },
    }


def record(run: RunDirectory, description: dict[str, Any]) -> list[str]:
    """Write ``run.json``; a resumed run keeps its first record and adds the new launch.

    Returns:
        remarks worth telling, such as another git commit than at the first launch.
    """
    path = run.path / "run.json"
    if not path.exists():
        write_json(path, {**description, "resumed": []})
        return []
    stored: Any = read_record(path, RunRecord)
    stored.setdefault("resumed", [])
    stored["resumed"].append({key: description[key] for key in ("started", "command", "git", "code_sha256", "host")})
    write_json(path, stored)
    before, now = (stored.get("git") or {}).get("commit"), (description["git"] or {}).get("commit")
    return [f"this run was started with commit {before}, and goes on with {now}"] if before != now else []


def add_to_record(run: RunDirectory, entries: dict[str, Any]) -> None:
    """Add to ``run.json`` what is known only later; an entry of an earlier launch is replaced."""
    path = run.path / "run.json"
    write_json(path, {**read_json(path), **entries})


def git_state(checkout: Path) -> dict[str, Any] | None:
    """Commit and uncommitted diff of the code, or of what a sweep's snapshot was made of; None outside a checkout."""
    if (checkout / "git.json").exists():
        return read_json(checkout / "git.json")  # type: ignore[no-any-return]
    commit = _git(checkout, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit.strip(), "diff": redacted(_git(checkout, "diff", "HEAD") or "")}


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(checkout), *arguments],  # noqa: S607
            capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def code_digest() -> str:
    """Hex sha256 over names and content of this package's Python files, committed or not."""
    package = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def installed_packages() -> dict[str, str]:
    """Version of every installed distribution, by name."""
    found = {distribution.name: distribution.version for distribution in importlib.metadata.distributions()}
    return dict(sorted(found.items(), key=lambda entry: entry[0].lower()))
