"""The MLflow run that stands for a sweep: best value so far, numbers of trials, a note and a table of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recyclelora.runs.status import RunEnd
from recyclelora.sweep.ledger import ENDED, FAILED, PAUSED, Trial
from recyclelora.system.storage import taking_turns
from recyclelora.tracking.mlflow.outbox import Point, State, last_steps, send_files, send_points
from recyclelora.tracking.mlflow.runs import STATUS
from recyclelora.tracking.mlflow.store import Store
from recyclelora.tracking.mlflow.views import TRIALS, link, show, trials_view
from recyclelora.tracking.run_facts import LONGEST, identity, milliseconds, started, user, varied_name

FILES = ("study.json", "summary.json", "report/report.html", "report/table.md", "report/table.csv")
TOP = 10
"""Trials in its note."""


@dataclass
class ParentRun:
    """What it learns of MLflow it believes until a request fails."""

    sweep_dir: Path
    store: Store
    experiment_name: str
    study: dict[str, Any]
    """``study.json``"""

    def __post_init__(self) -> None:
        self.state = State(self.sweep_dir, self.store.name)
        self.steps: dict[str, int] | None = None
        self.sent: dict[str, Any] = {}

    @cached_property
    def experiment(self) -> str:
        """The id of its experiment."""
        return self.store.experiment(self.experiment_name)

    def doubt(self) -> None:
        """Believe nothing of what MLflow has: ask again."""
        self.steps, self.sent = None, {}

    def run_id(self) -> str:
        """Its id in MLflow; created by the first that asks, under a lock."""
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
            tags = {"mlflow.runName": f"sweep {self.sweep_dir.name}", "study": self.sweep_dir.name, "role": "sweep"}
            tags |= user(self.sweep_dir)
            since = started(self.study.get("created"))
            self.state.run_id = self.store.find_or_create(
                self.experiment, identity(self.sweep_dir, self.study.get("created")), tags, since
            )
            self.state.write()
            if not (self.sweep_dir / "ledger").is_dir():  # Hydra's own sweeper: nobody will tell when it ends
                self.store.set_status(self.state.run_id, "FINISHED", None)
            self.steps = last_steps(self.store.client.get_run(self.state.run_id))
        return self.state.run_id

    def send(self, ledger: dict[str, Trial], scores: Iterable[str], *, last: bool) -> None:
        """Send what is new.

        Args:
            ledger: the trials
            scores: names of the final scores that any run has
            last: whether the driver is gone
        """
        client, run_id, best = self.store.client, self.run_id(), self.best(ledger)
        assert self.steps is not None
        send_points(client, run_id, iter(self._points(ledger)), self.steps)
        counts = Counter(trial.state for trial in ledger.values() if not trial.confirms)
        self._send_tags(run_id, self._tags(counts, best))
        self._send_note(run_id, ledger)
        self._send_view(ledger, scores)
        end = self._sweep_end(counts, last=last)
        if self.sent.get("status") != end.status:
            ended = max((_finished(trial) for trial in ledger.values()), default=0) or int(1000 * time.time())
            self.store.set_status(run_id, STATUS[end.status], None if end.status == "running" else ended)
            self.sent["status"] = end.status
        files = [self.sweep_dir / name for name in FILES] + sorted((self.sweep_dir / "report/figures").glob("*.png"))
        send_files(client, self.sweep_dir, files, self.state, lambda path: None)

    @property
    def objective(self) -> str:
        """The name of what the sweep optimises, in letters that MLflow takes."""
        return str((self.study.get("objectives") or ["objective"])[0]).replace("~", "_near_")

    def _sign(self) -> int:
        """1 where more is better."""
        directions = self.study.get("directions") or ["maximize"]
        return -1 if str(directions[0]).lower().startswith("min") else 1

    def best(self, ledger: dict[str, Trial]) -> Trial | None:
        """The best trial so far."""
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

    def _send_view(self, ledger: dict[str, Trial], scores: Iterable[str]) -> None:
        """The table of trials: what varies, and the final scores that any of them has."""
        params = dict.fromkeys(name for trial in ledger.values() for name in trial.params)
        scores = list(scores)
        state = trials_view(dict.fromkeys(map(varied_name, params)), scores, ascending=self._sign() < 0)
        if params and scores and self.sent.get("view") != state:
            show(self.store.client, self.experiment, TRIALS, state, scores[0], self._head())
            self.sent["view"] = state

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
            lines += ["", f"[Table of all trials]({link(self.experiment, TRIALS)})"]
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
        over = sum(counts[state] for state in (*ENDED, PAUSED))
        if over < wanted:
            return RunEnd("killed")
        return RunEnd("finished" if counts[FAILED] < over else "failed")


def _candidates(ledger: dict[str, Trial]) -> list[Trial]:
    """Trials that may be the best one."""
    return [t for t in ledger.values() if t.value is not None and t.feasible and not t.confirms]


def _finished(trial: Trial) -> int:
    """When it was over, in milliseconds since 1970; 0 while it is not."""
    return milliseconds(trial.finished) or 0
