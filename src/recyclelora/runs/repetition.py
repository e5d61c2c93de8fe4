"""Whether a run can be repeated as it was, and whether its repetition found the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from recyclelora.config.commands import RepeatConfig
from recyclelora.config.run import Config
from recyclelora.config.training import TrackingConfig
from recyclelora.runs.directory import ADAPTER, METRICS
from recyclelora.runs.metrics_log import TIMINGS, read_points
from recyclelora.system.cache import of_run

CONTENT = {
    "dataset_digest": "data",
    "weights_sha256": "pretrained weights",
    "init_sha256": "adapter of init_from",
    "precision": "precision",
    "world_size": "number of processes",
}
"""Entries of ``run.json`` that make it another run, and their names in messages."""

MACHINE = ("cpu", "threads", "gpus", "driver", "cuda", "cudnn")
"""Entries of ``host`` that can change the last bits of float32 sums."""


def as_asked(stored: Config, config: RepeatConfig) -> Config:
    """The stored configuration, written elsewhere and told to nobody; with the places that were named."""
    data = stored.data
    if config.data_root is not None:
        data = dataclasses.replace(data, root=config.data_root)
    if config.folder_root is not None and data.folder is not None:
        data = dataclasses.replace(data, folder=dataclasses.replace(data.folder, root=config.folder_root))
    return dataclasses.replace(
        stored, data=data, output_dir=config.output_dir, cache=config.cache or str(of_run(stored.cache)),
        tracking=TrackingConfig(mlflow=False), study=None, fresh=False,
    )  # fmt: skip


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each difference of code, packages, data, weights and processes between two ``run.json``."""
    lines = [
        f"{name}: {_short(then.get(key))} then, {_short(now.get(key))} now"
        for key, name in CONTENT.items()
        if then.get(key) != now.get(key)
    ]
    if then.get("code_sha256") != now["code_sha256"]:
        lines.insert(0, f"code: {_code(then)} then, {_code(now)} now")
    versions, here = then["versions"], now["versions"]
    lines += [
        f"{name}: {versions.get(name, 'not installed')} then, {here.get(name, 'not installed')} now"
        for name in sorted(versions.keys() | here.keys())
        if versions.get(name) != here.get(name)
    ]
    return lines


def remedy(about: dict[str, object]) -> str:
    """How to get the code back that ``run.json`` tells of."""
    git = about.get("git")
    if not isinstance(git, dict):
        return "put that back"
    diff = " and apply git.diff of its run.json" if git["diff"] else ""
    return f"put that back (git checkout {git['commit'][:12]}{diff})"


def machine_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each difference of the machines that may change the last bits."""
    before, here = then["host"], now["host"]
    return [
        f"{key}: {before.get(key)} then, {here.get(key)} now" for key in MACHINE if before.get(key) != here.get(key)
    ]


def disagreements(run: Path, repeated: Path) -> list[str]:
    """How two finished runs differ in points and trained tensors, timings aside; nothing where they are identical."""
    return [*_points_that_differ(run, repeated), *_tensors_that_differ(run, repeated)]


def _points_that_differ(run: Path, repeated: Path) -> list[str]:
    first, second = (
        [{k: v for k, v in point.items() if k not in TIMINGS} for point in read_points(path / METRICS)]
        for path in (run, repeated)
    )
    if len(first) != len(second):
        return [f"{METRICS}: {len(first)} points then, {len(second)} now"]
    for before, now in zip(first, second, strict=True):
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                return [f"{METRICS}: {name} after step {before['step']} was {before.get(name)}, is {now.get(name)}"]
    return []


def _tensors_that_differ(run: Path, repeated: Path) -> list[str]:
    before, now = (load_file(path / ADAPTER) for path in (run, repeated))
    if before.keys() != now.keys():
        return [f"{ADAPTER}: other tensors: {', '.join(sorted(before.keys() ^ now.keys())[:3])}"]
    differ = [name for name in before if not torch.equal(before[name], now[name])]
    if not differ:
        return []
    largest = max(float((before[name].double() - now[name].double()).abs().max()) for name in differ)
    return [f"{ADAPTER}: {len(differ)} of {len(before)} tensors differ, by at most {largest:.2g}"]


def _short(value: Any) -> Any:
    """A digest by its first digits."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value


def _code(about: Mapping[str, Any]) -> str:
    git = about.get("git")
    if not git:
        return f"sha256 {_short(about.get('code_sha256'))}"
    return f"commit {git['commit'][:12]}" + (" with uncommitted changes" if git["diff"] else "")
