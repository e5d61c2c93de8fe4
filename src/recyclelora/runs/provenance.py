"""The identity of a run, its directory, and the record of where it came from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from recyclelora.config.compose import load_config, to_yaml
from recyclelora.config.run import Config
from recyclelora.runs.mailbox import Unit
from recyclelora.runs.records import Time, read_record
from recyclelora.system.checks import before_additions, identity_fields
from recyclelora.system.errors import UserError
from recyclelora.system.redaction import redacted
from recyclelora.system.storage import locked, read_json, remove_leftovers, set_aside, sha256, write_json, write_text

if TYPE_CHECKING:
    from recyclelora.data.identity import Files

FREE = (
    "output_dir", "cache", "study", "fresh", "tracking", "factor_cache_gib", "data.root", "data.folder.root",
    "data.decode_cache", "trainer.num_workers", "trainer.log_every", "trainer.num_figures", "trainer.checkpoint_every",
    "trainer.eval_window_batch", "trainer.stall_timeout", "data.cityscapes_labels",
)  # fmt: skip
"""Keys that do not change what is computed, except by the files that are read, which are part of the data's digest."""

NAMES_OF_CONTENT = ("data.root", "data.folder.root", "data.cityscapes_labels")
"""Those of :data:`FREE` that say which files are read: what is in them is told apart only once they are opened."""

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


PACKAGES = ("recyclelora", "hydra_plugins/recyclelora_sweeper")
"""Folders of this project's code, where it was installed."""


@dataclass(frozen=True)
class Identity:
    """What makes two runs the same run."""

    weights_sha256: str | None
    dataset_digest: str
    """of what is trained on"""
    precision: str
    world_size: int
    init_sha256: str | None = None
    """of the adapter that ``init_from`` starts from"""


def signature(config: Config, identity: Identity) -> str:
    """First 16 hex digits of the sha256 over the resolved configuration and the content it refers to."""
    fields = _fields_without(config, (*NOT_IDENTITY, *_without_effect(config, identity)))
    text = json.dumps({"config": fields, "identity": dataclasses.asdict(identity)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trains_as(config: Config) -> str:
    """Hex sha256, equal for configurations that train the same without a look at weights, data or hardware.

    What a :func:`signature` knows by content or resolved is here known by its text: two of these may still be one run,
    but never is one of these two runs.
    """
    fields = _fields_without(config, (key for key in FREE if key not in NAMES_OF_CONTENT))
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _fields_without(config: Config, keys: Iterable[str]) -> dict[str, Any]:
    """The fields of a configuration that can be part of an identity, but for some."""
    fields: dict[str, Any] = identity_fields(config)
    for key in keys:
        *parents, leaf = key.split(".")
        node = fields
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(leaf, None)
    return fields


def evaluation_identity(
    weights: str, sets: Mapping[str, str], protocol: Mapping[str, Any], classes: Sequence[str], precision: str
) -> str:  # fmt: skip
    """sha256 of all that scores depend on: two evaluations with the same one ask the same question.

    Args:
        weights: digest of the trained tensors; the frozen ones are the run's
        sets: name in the result -> digest of what is scored, and of how it is read
        protocol: its values
        classes: their names by train id
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``
    """
    asked = [weights, dict(sets), dict(protocol), list(classes), precision]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _without_effect(config: Config, identity: Identity) -> Iterator[str]:
    """Options younger than the first release that change nothing here: a run that it began is the same run.

    In float32 there is no autocast for ``mixed_precision``; and ``positions`` is about other sizes than the one that is
    laid out, of weights that were pretrained on another grid.
    """
    if identity.precision in ("", "32-true"):
        yield "adapter.mixed_precision"
    crop, protocol = list(config.data.augment.crop), config.data.protocol
    laid_out = list(config.backbone.image_size or crop)
    one_size = crop == laid_out and protocol.mode == "slide" and laid_out == [protocol.window] * 2
    if identity.weights_sha256 is None or one_size:
        yield "backbone.positions"


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
    def partial_counts(self) -> Path:
        """What is kept of an evaluation that may be stopped."""
        return self.path / "evaluations" / "partial"

    @property
    def unreadable(self) -> Path:
        """Files of the data that this run could not read, and how many bytes they had: see :func:`find_run`."""
        return self.path / "unreadable.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: every point of every curve."""
        return self.path / "metrics.jsonl"

    @property
    def result_path(self) -> Path:
        """Written last: a run with it is finished."""
        return self.path / "result.json"

    def alike(self) -> list[RunDirectory]:
        """The directories that are there and have this one's name but for the signature in it."""
        signed = self.path if re.search(r"-[0-9a-f]{16}$", self.path.name) else self.path.parent
        pattern = re.sub(r"[0-9a-f]{16}$", 16 * "[0-9a-f]", signed.name)
        found = (folder / self.path.relative_to(signed) for folder in signed.parent.glob(pattern))
        return [RunDirectory(path) for path in sorted(found) if path.is_dir()]

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


def find_run(
    config: Config, identity: Identity, files: Files, trial: int | None, unit: Unit | None = None
) -> tuple[RunDirectory, Identity]:
    """The directory of a run and the identity that it has there.

    A run is also found where it began under another identity of the same training: before files that it could not read
    were mended, or under version 0.1.0, to which the scored sets were part of what a training is.
    """

    def place(digest: str) -> tuple[RunDirectory, Identity]:
        its = dataclasses.replace(identity, dataset_digest=digest)
        return run_directory(config, its, trial, unit), its

    now = place(files.trained_on())
    if config.fresh or now[0].path.exists():
        return now
    earlier = place(files.all_together())
    if earlier[0].path.exists():
        return earlier
    for alike in now[0].alike():
        as_then = unreadable_files(alike)
        if not as_then:
            continue
        for found in (place(files.trained_on(as_then)), place(files.all_together(as_then))):
            if found[0] == alike:
                return found
    return now


def earlier_run(config: Config, identity: Identity, files: Files, trial: int | None) -> str | None:
    """A sentence on the run that version 0.1.0 began for the same command, whose shipped options had other values."""
    before, overrides = before_additions(config)
    ignored = (*NOT_IDENTITY, *_without_effect(config, identity))
    overrides = [override for override in overrides if override.partition("=")[0] not in ignored]
    if not overrides:
        return None
    run, _ = find_run(before, identity, files, trial)
    if not run.path.exists():
        return None
    place = run.path.relative_to(Path(config.output_dir).absolute())
    return (
        f"{Path(config.output_dir) / place} is the run of this command with the options of version 0.1.0, which this "
        "one does not touch; "
        f"to go on with it, or see its result, add: {shlex.join(overrides)}"
    )


def unreadable_files(run: RunDirectory) -> dict[str, int]:
    """The files that a run could not read, by their name in :class:`Files`, and the bytes that they had then."""
    if not run.unreadable.exists():
        return {}
    found = read_json(run.unreadable)
    if not isinstance(found, dict) or not all(isinstance(size, int) for size in found.values()):
        raise UserError(f"{run.unreadable}: must be an object of file names and numbers of bytes")
    return found


def note_unreadable(run: RunDirectory, files: Files, names: Iterable[str]) -> None:
    """Remember files that could not be read, so that the run is found again when they are mended."""
    known = unreadable_files(run)
    new = {name: size for name, size in files.sizes(names).items() if name not in known}
    if new:
        write_json(run.unreadable, {**known, **new})


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
    """16 hex digits, equal for configurations that are one run wherever weights, data and hardware are the same.

    For two of which that is known, such as those of one run directory; of others, :func:`trains_as` asks.
    """
    nothing = Identity(None, "", "", 0)
    return signature(config, nothing)


def command_line() -> str:
    """The command that this process was started with, without passwords."""
    return redacted(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def describe(config: Config, identity: Identity, sign: str, extra: dict[str, Any], checkout: Path) -> dict[str, Any]:
    """The content of ``run.json``: command, versions, code, host, data, weights and protocol."""
    from recyclelora.system.hardware import hardware  # imports torch

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


@functools.cache
def code_digest() -> str:
    """Hex sha256 over names and content of the Python files of :data:`PACKAGES`, committed or not."""
    source = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for name in PACKAGES for path in (source / name).rglob("*.py")):
        digest.update(f"{path.relative_to(source).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def installed_packages() -> dict[str, str]:
    """Version of every installed distribution, by name."""
    found = {distribution.name: distribution.version for distribution in importlib.metadata.distributions()}
    return dict(sorted(found.items(), key=lambda entry: entry[0].lower()))
