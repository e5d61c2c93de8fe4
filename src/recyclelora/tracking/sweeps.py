"""One sweep directory -> a parent run with the runs of its trials nested inside."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from recyclelora.config.compose import load_config
from recyclelora.config.run import Config
from recyclelora.runs.directory import CONFIG, RECORD, is_finished, is_run
from recyclelora.runs.end import RunEnd, run_end
from recyclelora.runs.mailbox import CONFIRM, AttemptEnd
from recyclelora.runs.metrics_log import FINAL
from recyclelora.sweep.ledger import ENDED, FAILED, PRUNED, Ledger, Trial
from recyclelora.sweep.record import read_study
from recyclelora.system.errors import UserError
from recyclelora.system.storage import is_own_file, taking_turns
from recyclelora.tracking.description import LONGEST, identity, milliseconds, started, trial_name
from recyclelora.tracking.outbox import Point, State, last_steps, send_files, send_points
from recyclelora.tracking.runs import STATUS, RunSender
from recyclelora.tracking.store import Store, outputs_of
from recyclelora.tracking.views import TAG, link, view

RUN_DIRS = ("trial_*", "trial_*/seed_*", "confirm_*", "confirm_*/seed_*")
FILES = ("study.json", "summary.json", "report/report.html", "report/table.md", "report/table.csv")
TOP = 10
"""Trials in the note of the parent run."""


@dataclass
class SweepSender:
    """Sends a sweep and all its runs."""

    sweep_dir: Path
    to: str | None = None
    """an address of MLflow, see Store.of"""
    runs: dict[Path, RunSender] = field(default_factory=dict)
    done: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.steps: dict[str, int] | None = None
        self.sent: dict[str, Any] = {}
        self.told: set[str] = set()

    @property
    def name(self) -> str:
        """Of the study."""
        return self.sweep_dir.name

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
        return Store.of(self.config, outputs_of(self.sweep_dir), self.to)

    @cached_property
    def state(self) -> State:
        """What is known of the parent run."""
        return State(self.sweep_dir, self.store.name)

    @cached_property
    def experiment(self) -> str:
        """The id of its experiment."""
        return self.store.experiment(self.config.tracking.experiment or self.name)

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
        parent, ledger = self.parent(), self.ledger()
        best = self._best(ledger)
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
            sender.extra_tags = _trial_tags(trial)
            is_best = best is not None and trial is best
            try:
                sender.send(end, model=last and is_best and sender.config.tracking.model)
            except Exception as error:
                if not self.store.answers():
                    self._doubt()
                    raise
                failures[run_dir] = str(error)  # the other runs are still to be sent
            else:
                if trial is not None and trial.ended and end.status != "running" and not is_best:
                    self.done.add(run_dir)
        try:
            self._send_parent(parent, ledger, best, last=last)
        except Exception:
            self._doubt()
            raise
        return failures

    def _doubt(self) -> None:
        """Believe nothing of what MLflow has: ask again."""
        self.steps, self.sent = None, {}

    # --- the parent ---------------------------------------------------------------------------------------------------

    def parent(self) -> str:
        """The MLflow run that stands for the sweep; created by the first that asks, under a lock."""
        from mlflow.exceptions import MlflowException

        if self.state.run_id is not None and self.steps is not None:
            return self.state.run_id
        with taking_turns(self.sweep_dir / ".mlflow.lock"):
            self.state = State(self.sweep_dir, self.store.name)  # another process may have been faster
            if self.state.run_id is not None:
                try:
                    self.steps = last_steps(self.store.client.get_run(self.state.run_id))
                    return self.state.run_id
                except MlflowException as error:
                    if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                        raise
                    self.state.forget()
            tags = {"mlflow.runName": f"sweep {self.name}", "study": self.name, "role": "sweep"}
            since = started(self.study.get("created"))
            self.state.run_id = self.store.find_or_create(
                self.experiment, identity(self.sweep_dir, self.study.get("created")), tags, since
            )
            self.state.write()
            if not (self.sweep_dir / "ledger").is_dir():  # Hydra's own sweeper: nobody will tell when it ends
                self.store.set_status(self.state.run_id, "FINISHED", None)
            self.steps = last_steps(self.store.client.get_run(self.state.run_id))
        return self.state.run_id

    def _send_parent(self, run_id: str, ledger: dict[str, Trial], best: Trial | None, *, last: bool) -> None:
        client = self.store.client
        assert self.steps is not None
        send_points(client, run_id, iter(self._points(ledger)), self.steps)
        counts = Counter(trial.state for trial in ledger.values() if not trial.confirms)
        self._send_tags(run_id, self._tags(counts, best))
        self._send_note(run_id, ledger)
        self._send_view(ledger)
        end = self._sweep_end(counts, last=last)
        if self.sent.get("status") != end.status:
            ended = max((_finished(trial) for trial in ledger.values()), default=0) or int(1000 * time.time())
            self.store.set_status(run_id, STATUS[end.status], None if end.status == "running" else ended)
            self.sent["status"] = end.status
        files = [self.sweep_dir / name for name in FILES] + sorted((self.sweep_dir / "report/figures").glob("*.png"))
        send_files(client, self.sweep_dir, files, self.state, lambda path: None)

    @property
    def objective(self) -> str:
        """The name of what the sweep optimises."""
        return str((self.study.get("objectives") or ["objective"])[0])

    def _sign(self) -> int:
        """1 where more is better."""
        directions = self.study.get("directions") or ["maximize"]
        return -1 if str(directions[0]).lower().startswith("min") else 1

    def _best(self, ledger: dict[str, Trial]) -> Trial | None:
        return max(_candidates(ledger), key=lambda trial: self._sign() * (trial.value or 0.0), default=None)

    def _points(self, ledger: dict[str, Trial]) -> Iterator[Point]:
        """The best value so far and the numbers of trials, one step each trial that is over."""
        over = self._in_order([t for t in ledger.values() if t.ended and not t.confirms])
        counts, best, sign = Counter[str](), None, self._sign()
        for step, trial in enumerate(over, 1):
            counts[trial.state] += 1
            when = _finished(trial)
            for state in ENDED:
                yield f"trials/{state}", counts[state], when, step
            if trial.value is not None:
                if trial.feasible:
                    best = trial.value if best is None else sign * max(sign * best, sign * trial.value)
                yield f"trial_{self.objective}", trial.value, when, step
            if best is not None:
                yield f"best_{self.objective}", best, when, step

    def _in_order(self, over: list[Trial]) -> list[Trial]:
        """Ended trials as they were sent before, then the new ones by time: a clock may go back, a curve may not."""
        by_name = {trial.folder.name: trial for trial in over}
        new = sorted((t for t in over if t.folder.name not in self.state.order), key=lambda t: (_finished(t), t.number))
        if new:
            self.state.order += [trial.folder.name for trial in new]
            self.state.write()
        return [by_name[name] for name in self.state.order if name in by_name]

    def _tags(self, counts: Counter[str], best: Trial | None) -> dict[str, str]:
        tags = {"trials": ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))}
        if "tuned_on_targets" in self.study:
            tags["tuned_on_targets"] = str(self.study["tuned_on_targets"]).lower()
        if best is not None:
            tags["best_trial"] = str(best.number)
        return tags

    def _send_tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        new = {name: value for name, value in tags.items() if self.sent.get(f"tag {name}") != value}
        if new:
            self.store.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in new.items()])
            self.sent |= {f"tag {name}": value for name, value in new.items()}

    def _send_view(self, ledger: dict[str, Trial]) -> None:
        """The table of trials: what varies, and the final scores that any of them has."""
        params = dict.fromkeys(name for trial in ledger.values() for name in trial.params)
        scores = dict.fromkeys(
            name for run in self.runs.values() for name in run.steps or {} if name.startswith(f"{FINAL}/")
        )
        text = view(params, scores, ascending=self._sign() < 0)
        if params and self.sent.get("view") != text:
            self.store.client.set_experiment_tag(self.experiment, TAG, text)
            self.sent["view"] = text

    def _send_note(self, run_id: str, ledger: dict[str, Trial]) -> None:
        """The command and the best trials; an own text of the user is left alone."""
        text = self._note(ledger)
        if self.sent.get("note") == text:
            return
        shown = self.store.client.get_run(run_id).data.tags.get("mlflow.note.content", "")
        if shown == "" or shown.startswith(self._head()):
            self.store.client.set_tag(run_id, "mlflow.note.content", text)
        self.sent["note"] = text

    def _head(self) -> str:
        return f"`python {self.study.get('command', 'train.py -m')}`"

    def _note(self, ledger: dict[str, Trial]) -> str:
        done = _candidates(ledger)
        done.sort(key=lambda trial: -self._sign() * (trial.value or 0.0))
        failed = [trial for trial in ledger.values() if trial.state == FAILED]
        lines = [self._head()]
        if ledger:
            lines += ["", f"[Table of all trials]({link(self.experiment)})"]
        if done:
            names = list(dict.fromkeys(name for trial in done for name in trial.params))
            lines += ["", " | ".join(["", "trial", self.objective, *names, ""]).strip()]
            lines += ["|---" * (2 + len(names)) + "|"]
            for trial in done[:TOP]:
                params = [str(trial.params.get(name, "")) for name in names]
                lines += [" | ".join(["", str(trial.number), f"{trial.value:.4f}", *params, ""]).strip()]
        lines += [""] if failed else []
        lines += [f"- trial {t.number} failed: {t.reason}" for t in failed[:TOP]]
        return "\n".join(lines)[:LONGEST]

    def _sweep_end(self, counts: Counter[str], *, last: bool) -> RunEnd:
        if not counts:
            return RunEnd("finished")
        if not last:
            return RunEnd("running")
        wanted = self.study.get("n_trials") or sum(counts.values())
        over = sum(counts[state] for state in ENDED)
        if over < wanted:
            return RunEnd("killed")
        return RunEnd("finished" if counts[FAILED] < over else "failed")

    # --- its runs -----------------------------------------------------------------------------------------------------

    def _end(self, run_dir: Path, trial: Trial | None, *, last: bool) -> RunEnd:
        """What has become of a run: what its job said, what the driver said, what its own files say."""
        if is_finished(run_dir):
            return RunEnd("finished")
        outcome = _outcome(trial, run_dir.relative_to(self.sweep_dir).as_posix()) if trial else None
        if outcome is not None and outcome["status"] in ("failed", "pruned", "interrupted"):
            return RunEnd(outcome["status"], outcome.get("reason") or "")
        if trial is not None and trial.state in (FAILED, PRUNED):
            return RunEnd(trial.state, trial.reason or "")
        if not last and (trial is None or not trial.ended):
            return RunEnd("running")
        return run_end(run_dir)


def _candidates(ledger: dict[str, Trial]) -> list[Trial]:
    """Trials that may be the best one."""
    return [t for t in ledger.values() if t.value is not None and t.feasible and not t.confirms]


def _trial_tags(trial: Trial | None) -> dict[str, str]:
    if trial is None:
        return {}
    tags = {"trial": str(trial.number), "trial_state": trial.state}
    return tags | ({"kind": trial.kind} if trial.confirms else {})


def _name(trial: Trial, seed: int) -> str:
    """Of its run with a seed."""
    return trial_name(CONFIRM if trial.confirms else "trial", trial.number, trial.params, seed)


def _finished(trial: Trial) -> int:
    """When it was over, in milliseconds since 1970; 0 while it is not."""
    return milliseconds(trial.finished) or 0


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


def is_sweep(folder: Path) -> bool:
    """Whether a directory is a sweep's and not a run's."""
    trials = any(re.match(r"(trial|confirm)_\d+-", path.name) for path in folder.glob("*_*"))
    return not is_run(folder) and (trials or (folder / "ledger").is_dir())
