"""What run directories and a sweep's ledger say, as plain records; nothing else is read, nothing is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from recyclelora.config.run import of_any_version
from recyclelora.runs.directory import CONFIG, LOG, METRICS, RECORD, RunDirectory, RunRecord, is_run
from recyclelora.runs.identity import NOT_IDENTITY
from recyclelora.runs.metrics_log import read_points
from recyclelora.runs.unit import CONFIRM
from recyclelora.sweep import ledger
from recyclelora.sweep.goals import is_of_targets
from recyclelora.sweep.ledger import SEARCH
from recyclelora.sweep.race.reading import read_race
from recyclelora.sweep.race.rules import Race, Standing
from recyclelora.sweep.record import is_sweep, read_study
from recyclelora.system.errors import UserError, first_line
from recyclelora.system.typed_json import read_record

RUN = "run"
"""Kind of a line that is no trial of a sweep."""
TRIAL_FOLDER = re.compile(r"(trial|confirm)_(\d+)-[0-9a-f]{16}")
IDENTITY = {
    "weights_sha256": "backbone.weights",
    "dataset_digest": "data.digest",
    "precision": "trainer.precision",
    "world_size": "trainer.processes",
    "init_sha256": "init_from.sha256",
}
"""What ``run.json`` knows beyond the configuration, and the key under which two runs are told apart by it."""


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        path: of the directory.
        seed: None where the configuration is not there yet.
        config: ``section.key`` -> value of all that makes it another run, without the seed.
        result: ``result.json`` of a finished run.
        points: of ``metrics.jsonl``.
        max_steps: how far it is to go.
        command: it was started with.
    """

    path: Path
    seed: int | None
    config: dict[str, Any]
    result: dict[str, Any] | None
    points: list[dict[str, float]] = field(repr=False)
    max_steps: int | None
    command: str | None

    @property
    def key(self) -> str:
        """Equal for runs that differ by the seed only."""
        return json.dumps(self.config, sort_keys=True, default=str)

    @property
    def step(self) -> int:
        """The last step that was recorded."""
        return int(max((point["step"] for point in self.points), default=0))


@dataclass(frozen=True)
class Trial:
    """One line of a sweep.

    Attributes:
        name: such as ``0007`` or ``confirm_0007``; of a plain run its directory.
        kind: search, confirm (a rerun on fresh seeds), or run where there is no sweep.
        state: complete, running, waiting, paused, pruned, failed; without a ledger complete or unfinished.
        values: of the objectives.
        reason: why it failed or was pruned, in one line.
        log: what it printed.
        feasible: whether it keeps the constraints of its sweep.
    """

    name: str
    number: int
    kind: str
    state: str
    values: list[float] | None
    params: dict[str, Any]
    distributions: dict[str, Any]
    reason: str | None
    log: Path | None
    runs: list[Run]
    feasible: bool = True

    @property
    def confirms(self) -> bool:
        """Whether it is a rerun on fresh seeds."""
        return self.kind == CONFIRM


@dataclass(frozen=True)
class Study:
    """A sweep, or runs that somebody put beside each other.

    Attributes:
        name: for headings.
        folder: all paths are shown relative to it.
        is_sweep: whether there is one command that made all of it.
        is_grid: whether it goes through every combination, and nothing is searched.
        directions: ``maximize`` or ``minimize``, one an objective.
        objectives: their names.
        command: that made it and resumes it.
        tuned_on_targets: whether the target sets decided which trials were run.
        race: of its candidates over seeds, and how they stand.
    """

    name: str
    folder: Path
    is_sweep: bool
    directions: list[str]
    objectives: list[str]
    command: str | None
    tuned_on_targets: bool
    trials: list[Trial]
    is_grid: bool = False
    race: tuple[Race, list[Standing]] | None = None

    @property
    def kind(self) -> str:
        """In headings."""
        return "Grid" if self.is_grid else "Search"

    @property
    def runs(self) -> list[Run]:
        """Of all trials."""
        return [run for trial in self.trials for run in trial.runs]


# --- one run ----------------------------------------------------------------------------------------------------------


def read_run(path: Path) -> Run:
    """A run directory as far as it has been written."""
    config = _yaml(path / CONFIG)
    about: Any = read_record(path / RECORD, RunRecord) if (path / RECORD).exists() else {}
    flat = flattened(of_any_version(config)) | {
        key: about[name] for name, key in IDENTITY.items() if about.get(name) is not None
    }
    return Run(
        path, config.get("seed"), flat, RunDirectory(path).result(), read_points(path / METRICS),
        (config.get("trainer") or {}).get("max_steps"), about.get("command"),
    )  # fmt: skip


def flattened(config: dict[str, Any]) -> dict[str, Any]:
    """``section.key`` -> value without the seed and what does not change a run; a list of plain values is one value."""
    found: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if path == "seed" or path in NOT_IDENTITY:
            return
        if isinstance(node, dict):
            children = list(node.items())
        elif isinstance(node, list) and any(isinstance(item, dict | list) for item in node):
            children = list(enumerate(node))
        else:
            found[path] = node
            return
        for name, child in children:
            walk(child, f"{path}.{name}" if path else str(name))

    walk(config, "")
    return found


def _yaml(path: Path) -> dict[str, Any]:
    try:
        # the safe loader in C: 30 times as fast as OmegaConf, and the report needs no types
        found = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: its content is {type(found).__name__}, not keys and values")
    return found


# --- many -------------------------------------------------------------------------------------------------------------


def read_sweep(folder: Path) -> Study:
    """A sweep folder, finished or not, with a ledger or only with run directories.

    Raises:
        UserError: no such folder, or no sweep in it.
    """
    if not folder.is_dir():
        raise UserError(f"sweep={folder}: no such folder{_sweeps_nearby(folder)}")
    folders = sorted(path for path in folder.iterdir() if TRIAL_FOLDER.fullmatch(path.name) and path.is_dir())
    written = ledger.Ledger(folder).trials()
    if not folders and not written:
        raise UserError(f"sweep={folder}: holds neither trial_* folders nor a ledger{_sweeps_nearby(folder)}")
    about: dict[str, Any] = dict(read_study(folder) or {})
    by_prefix: dict[str, list[Path]] = {}
    for path in folders:
        by_prefix.setdefault(path.name.rpartition("-")[0], []).append(path)
    trials = [_from_ledger(trial, folder, by_prefix.pop(trial.run_prefix, [])) for trial in written]
    trials += [_from_folders(prefix.removeprefix("trial_"), found) for prefix, found in by_prefix.items()]
    trials.sort(key=lambda trial: (trial.confirms, trial.number))
    runs = [run for trial in trials for run in trial.runs]
    names = list(about.get("objectives") or _objective_names(runs))
    return Study(
        str(about.get("name") or folder.resolve().name), folder, True,
        list(about.get("directions") or ["maximize"]), names,
        about.get("command") or next((run.command for run in runs if run.command), None),
        bool(about.get("tuned_on_targets")) or any(map(is_of_targets, names)), trials,
        "sampler" in about and about["sampler"] is None,
        read_race(folder),
    )  # fmt: skip


def read_runs(paths: Sequence[Path]) -> Study:
    """Run directories of any origin."""
    runs = [read_run(path.resolve()) for path in paths]
    trials = [
        Trial(run.path.name, number, RUN, "complete" if run.result else "unfinished",
              _objective([run]), {}, {}, None, _existing(run.path / LOG), [run])
        for number, run in enumerate(runs)
    ]  # fmt: skip
    common = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    names = _objective_names(runs)
    title = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    return Study(title, common, False, ["maximize"], names, None, any(map(is_of_targets, names)), trials)


def _from_ledger(trial: ledger.Trial, sweep: Path, folders: list[Path]) -> Trial:
    """A trial of the ledger with the run directories that its units name, or that bear its number."""
    said: list[Any] = [trial.said(unit) or {} for unit in range(len(trial.units))]
    named = [sweep / outcome["run_dir"] for outcome in said if outcome.get("run_dir")]
    found = {path.resolve(): path for path in [*named, *_run_folders(folders)] if is_run(path)}
    reasons = [trial.reason, *(outcome.get("reason") for outcome in said)]
    runs = [read_run(path) for path in found.values()]
    if not trial.confirms and len(runs) > len(trial.units):
        runs = [run for run in runs if run.path in named]  # others are of earlier attempts on other data or weights
    bad = next((unit for unit, outcome in enumerate(said) if outcome.get("status") != ledger.COMPLETE), 0)
    return Trial(
        trial.folder.name, trial.number, trial.kind, trial.state, trial.values, trial.params, trial.distributions,
        next((reason for reason in reasons if reason), None), _existing(trial.unit_folder(bad) / "log.txt"), runs,
        trial.feasible,
    )  # fmt: skip


def _from_folders(name: str, folders: list[Path]) -> Trial:
    """A trial without a ledger; what is there of it."""
    runs = [read_run(path) for path in _run_folders(folders)]
    finished = bool(runs) and all(run.result for run in runs)
    kind = CONFIRM if name.startswith(CONFIRM) else SEARCH
    log = next((run.path / LOG for run in runs if not run.result), None)
    return Trial(
        name, int(re.sub(r"\D", "", name)), kind, "complete" if finished else "unfinished",
        _objective(runs) if finished else None, {}, {}, None, _existing(log), runs,
    )  # fmt: skip


def _run_folders(folders: Sequence[Path]) -> list[Path]:
    """Run directories themselves, or the ones for each seed inside."""
    return [run for path in folders for run in (sorted(path.glob("seed_*")) or [path])]


def _objective(runs: Sequence[Run]) -> list[float] | None:
    """Mean objective of finished runs."""
    values = [run.result["objective"] for run in runs if run.result and run.result["objective"] is not None]
    return [sum(values) / len(values)] if values else None


def _objective_names(runs: Sequence[Run]) -> list[str]:
    names = {str(run.result["objective_name"]) for run in runs if run.result}
    return [max(names, default="source_val")]  # target_mean, if any run was tuned on it


def _existing(path: Path | None) -> Path | None:
    return path if path is not None and path.exists() else None


def _sweeps_nearby(folder: Path) -> str:
    """What could have been meant."""
    places = [folder, folder.parent, Path("outputs/sweeps")]
    found = [path for place in places if place.is_dir() for path in sorted(place.iterdir()) if is_sweep(path)]
    return f"; sweeps near it: {', '.join(str(path) for path in dict.fromkeys(found[:5]))}" if found else ""
