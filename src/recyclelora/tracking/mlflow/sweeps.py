"""One sweep directory -> a parent run with the runs of its trials nested inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from recyclelora.config.compose import load_config
from recyclelora.config.run import Config
from recyclelora.runs.directory import CONFIG, RECORD, is_finished, is_run, outputs_of
from recyclelora.runs.status import RunEnd, run_end
from recyclelora.runs.unit import CONFIRM, AttemptEnd
from recyclelora.sweep.ledger import FAILED, PAUSED, PRUNED, Ledger, Trial
from recyclelora.sweep.record import read_study
from recyclelora.system.errors import UserError
from recyclelora.system.storage import is_own_file
from recyclelora.tracking.mlflow.parent import ParentRun
from recyclelora.tracking.mlflow.runs import RunSender
from recyclelora.tracking.mlflow.store import Store
from recyclelora.tracking.run_facts import final_scores, trial_name

RUN_DIRS = ("trial_*", "trial_*/seed_*", "confirm_*", "confirm_*/seed_*")


@dataclass
class SweepSender:
    """Sends a sweep and all its runs."""

    sweep_dir: Path
    to: str | None = None
    """an address of MLflow, see Store.of"""
    runs: dict[Path, RunSender] = field(default_factory=dict)
    done: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.told: set[str] = set()

    @property
    def study(self) -> dict[str, Any]:
        """``study.json``; nothing for a multirun of Hydra's own sweeper."""
        try:
            return dict(read_study(self.sweep_dir) or {})
        except UserError as error:
            self.say(f"{error}; the sweep is sent without it")
            return {}

    def say(self, text: str) -> None:
        """Tell something once, beside what is sent."""
        if text not in self.told:
            print(text, flush=True)
        self.told.add(text)

    @cached_property
    def config(self) -> Config:
        """Of any run: what concerns the store is the same for all."""
        for run_dir in self.run_dirs():
            return load_config(run_dir / CONFIG)
        raise UserError(f"{self.sweep_dir}: no run has started yet")

    @cached_property
    def store(self) -> Store:
        """Where the sweep is sent to."""
        return Store.of(self.config, outputs_of(self.sweep_dir) or self.sweep_dir.parent, self.to)

    @cached_property
    def parent(self) -> ParentRun:
        """The run that stands for the sweep."""
        named = self.config.tracking.experiment or self.sweep_dir.name
        return ParentRun(self.sweep_dir, self.store, named, self.study)

    def ledger(self) -> dict[str, Trial]:
        """How the folders of its runs begin -> a trial."""
        ledger = Ledger(self.sweep_dir)
        trials = {trial.run_prefix: trial for trial in ledger.trials()}
        for remark in ledger.remarks:
            self.say(remark)
        return trials

    def run_dirs(self) -> Iterator[Path]:
        """Directories of runs that have begun, in the order of their trials."""
        for pattern in RUN_DIRS:
            for path in sorted(self.sweep_dir.glob(pattern)):
                began = is_own_file(self.sweep_dir, path / RECORD) and is_run(path)
                if began and ".old-" not in path.name:
                    yield path

    def send(self, *, last: bool) -> dict[Path, str]:
        """Send whatever is new of all runs, then of the sweep.

        Args:
            last: whether the driver is gone, so that what neither trains nor has ended was killed

        Returns:
            what could not be sent, and why; the other runs were.
        """
        if next(self.run_dirs(), None) is None and not last:
            return {}
        failures: dict[Path, str] = {}
        parent, ledger = self.parent.run_id(), self.ledger()
        self.parent.study = self.study
        best = self.parent.best(ledger)
        for run_dir in self.run_dirs():
            if run_dir in self.done:
                continue
            trial = ledger.get(run_dir.relative_to(self.sweep_dir).parts[0].rpartition("-")[0])
            end = self._end(run_dir, trial, last=last)
            if run_dir not in self.runs:
                config = load_config(run_dir / CONFIG)
                name = _name(trial, config.seed) if trial else None
                self.runs[run_dir] = RunSender(run_dir, config, self.store, parent, name)
            sender = self.runs[run_dir]
            sender.extra_tags, sender.varied = _trial_tags(trial), trial.params if trial else {}
            is_best = best is not None and trial is best
            try:
                sender.send(end, model=last and is_best and sender.config.tracking.model)
            except Exception as error:
                if not self.store.answers():
                    self.parent.doubt()
                    raise
                failures[run_dir] = str(error)  # the other runs are still to be sent
            else:
                if trial is not None and trial.ended and end.status != "running" and not is_best:
                    self.done.add(run_dir)
        try:
            sent = [run for run in self.runs.values() if run.steps]
            scores = dict.fromkeys(score for run in sent for score in final_scores(run.about))
            self.parent.send(ledger, scores, last=last)
        except Exception:
            self.parent.doubt()
            raise
        return failures

    def _end(self, run_dir: Path, trial: Trial | None, *, last: bool) -> RunEnd:
        """What has become of a run: what its job said, what the driver said, what its own files say."""
        if is_finished(run_dir):
            return RunEnd("finished")
        outcome = _outcome(trial, run_dir.relative_to(self.sweep_dir).as_posix()) if trial else None
        if outcome is not None and outcome["status"] in ("failed", "pruned", "interrupted"):
            return RunEnd(outcome["status"], outcome.get("reason") or "")
        if trial is not None and trial.state in (FAILED, PRUNED):
            return RunEnd(trial.state, trial.reason or "")
        if trial is not None and trial.state == PAUSED:
            return RunEnd(PAUSED, f"after step {trial.until}")
        if not last and (trial is None or not trial.ended):
            return RunEnd("running")
        return run_end(run_dir)


def _trial_tags(trial: Trial | None) -> dict[str, str]:
    if trial is None:
        return {}
    tags = {"trial": str(trial.number), "trial_state": trial.state}
    return tags | ({"kind": trial.kind} if trial.confirms else {})


def _name(trial: Trial, seed: int) -> str:
    """Of its run with a seed."""
    return trial_name(CONFIRM if trial.confirms else "trial", trial.number, trial.params, seed)


def _outcome(trial: Trial, run: str) -> AttemptEnd | None:
    """What the job of the run directory ``run`` (relative to the sweep) said last."""
    said = (trial.said(unit) for unit in range(len(trial.units)))
    return next((outcome for outcome in said if outcome is not None and outcome.get("run_dir") == run), None)


def sweep_of(run_dir: Path) -> Path | None:
    """The sweep directory that a run lies in."""
    for folder in run_dir.parents[:2]:
        if folder.parent.name == "sweeps":
            return folder
    return None
