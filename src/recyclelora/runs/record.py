"""The record of where a run came from: ``config.yaml`` and ``run.json``, code, packages and machine."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recyclelora.config.compose import load_config, to_yaml
from recyclelora.config.run import Config
from recyclelora.runs.directory import CONFIG, RECORD, RunDirectory, RunRecord
from recyclelora.runs.identity import Place, same_but_for_content
from recyclelora.system.errors import UserError
from recyclelora.system.redaction import redacted
from recyclelora.system.storage import (
    locked,
    make_folder,
    read_json,
    remove_leftovers,
    set_aside,
    sha256,
    write_json,
    write_text,
)
from recyclelora.system.typed_json import read_object, read_record

PACKAGES = ("recyclelora", "hydra_plugins/recyclelora_sweeper")
"""Folders of this project's code, where it was installed."""


@contextmanager
def claimed(run: RunDirectory, config: Config) -> Iterator[None]:
    """Hold the run's directory: a new one, or the one that belongs to this very configuration.

    Raises:
        UserError: another process holds it, or the stored configuration differs although the signature is the same.
    """
    if config.fresh and run.path.exists():
        with locked(run.path):
            set_aside(run.path)
    make_folder(run.path, "; set output_dir")
    with locked(run.path):
        remove_leftovers(run.path)
        stored = run.path / CONFIG
        if not stored.exists():
            write_text(stored, to_yaml(config))
        elif same_but_for_content(load_config(stored)) != same_but_for_content(config):
            raise UserError(
                f"{run.path}: holds a run of another configuration (see {CONFIG}); use fresh=true to replace it"
            )
        yield


def command_line() -> str:
    """The command that this process was started with, without passwords."""
    return redacted(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def describe(config: Config, place: Place, extra: dict[str, Any], checkout: Path) -> dict[str, Any]:
    """The content of ``run.json``: command, versions, code, host, data, weights and protocol."""
    from recyclelora.system.hardware import hardware  # imports torch

    return {
        "signature": place.signature,
        "command": command_line(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "adapter": config.adapter.name,
        "backbone": config.backbone.name,
        "decoder": config.decoder.name,
        "data": config.data.name,
        "seed": config.seed,
        "study": config.study,
        "protocol": config.data.protocol.name,
        **place.identity.as_dict(),
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
    path = run.path / RECORD
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
    path = run.path / RECORD
    write_json(path, {**read_object(path), **entries})


def git_state(checkout: Path) -> dict[str, Any] | None:
    """Commit and uncommitted diff of the code, or of what a sweep's snapshot was made of; None outside a checkout."""
    if (checkout / "git.json").exists():
        return read_json(checkout / "git.json")  # type: ignore[no-any-return]
    commit = _git(checkout, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit.strip(), "diff": redacted(_git(checkout, "diff", "HEAD") or "")}


def _git(checkout: Path, *arguments: str) -> str | None:
    # git refuses another account's repository, as a shared installation is; this one's code runs here already
    trusting = ["-c", f"safe.directory={checkout.resolve()}"]
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *trusting, "-C", str(checkout), *arguments],  # noqa: S607
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
