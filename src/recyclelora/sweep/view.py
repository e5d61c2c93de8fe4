"""The study while a driver uses it: a view of the ledger, whose failure must not end what it only shows; its pruner."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from recyclelora.runs.unit import AttemptEnd, Unit
from recyclelora.sweep.ledger import PRUNED, Trial
from recyclelora.sweep.study import handle_of, report

FAILURES = (StorageInternalError, SQLAlchemyError, sqlite3.Error, KeyError)
"""What a storage raises that is locked, full, gone, or no longer the one that was opened (KeyError: no such study)."""
PATIENCE = 10.0
"""Seconds for which a file of one's own is tried again; somebody else may read it just now."""
LONGEST_PAUSE = 30.0

T = TypeVar("T")


class View:
    """Lets a driver use its study.

    Args:
        study: Optuna's
        rebuild: makes it anew from the ledger: in memory, or in a database that several drivers share
        say: tells a person what happens
        stopped: whether the driver has been asked to end
        shared: whether it is in such a database, for which one waits however long it takes
    """

    def __init__(
        self, study: optuna.Study, rebuild: Callable[[], optuna.Study], say: Callable[[str], None],
        stopped: Callable[[], bool], *, shared: bool = False,
    ) -> None:  # fmt: skip
        self.study, self.say, self.stopped, self.shared = study, say, stopped, shared
        self._rebuild = rebuild
        self._in_memory = False

    def use(self, call: Callable[[], T], otherwise: T) -> T:
        """Call what uses the study; it may be called again, and must not mind.

        Returns:
            what it returns; ``otherwise`` where the driver was asked to end while the database did not answer.
        """
        began, failures, gone = time.monotonic(), 0, False
        while True:
            try:
                found = call()
                if failures and not self._in_memory:
                    self.say("the study's storage answers again")
                return found
            except FAILURES as error:
                if self._in_memory or (gone and isinstance(error, KeyError)):
                    raise
                failures, gone = failures + 1, isinstance(error, KeyError)
                if gone or (not self.shared and time.monotonic() - began > PATIENCE):
                    self._replace(error)
                elif not self._pause(error, failures):
                    return otherwise

    def _pause(self, error: Exception, failures: int) -> bool:
        """Wait a growing time; False when the driver is to end."""
        if failures == 1:
            self.say(f"the study's storage does not answer, and is waited for: {_brief(error)}")
        until = time.monotonic() + min(0.5 * 2.0 ** min(failures, 10), LONGEST_PAUSE)
        while time.monotonic() < until:
            if self.stopped():
                return False
            time.sleep(0.1)
        return True

    def _replace(self, error: Exception) -> None:
        """Go on with a study made from the ledger: this very object, since others hold it, gets its storage."""
        anew = self._rebuild()
        self.study._storage, self.study._study_id = anew._storage, anew._study_id
        if self.shared:
            self.say("the study was removed from its storage, and is there again: made from the ledger")
            return
        self._in_memory = True
        self.say(f"the study's file cannot be used ({_brief(error)}): it goes on in memory; the ledger has everything")


def _brief(error: Exception) -> str:
    """The cause in one line: Optuna's own words only say that something went wrong."""
    cause = error.__cause__ or error
    return (str(getattr(cause, "orig", None) or cause).splitlines() or [type(cause).__name__])[0][:200]


class Pruning:
    """Asks a study's pruner about trials.

    Args:
        study: Optuna's, with its pruner
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self._reported: dict[Path, int] = {}

    def stops(self, trial: Trial, unit: int) -> bool:
        """Pass a running unit's new reports on; ask it to stop where the pruner says so, and say that."""
        folder = trial.unit_folder(unit)
        path = folder / "reports.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size == self._reported.get(folder, 0) or Unit(folder).stop_reason() is not None:
            return False
        report(self.study, trial)
        prune: bool = handle_of(self.study, trial.number).should_prune()
        self._reported[folder] = size  # only now: a storage that does not answer is asked again
        if prune:
            Unit(folder).ask_to_stop(PRUNED)
        return prune

    def worse_so_far(self, trial: Trial, outcomes: Sequence[AttemptEnd]) -> bool:
        """Whether a trial's finished repeats are enough to give it up."""
        handle = handle_of(self.study, trial.number)
        for index, outcome in enumerate(outcomes):
            handle.report((outcome.get("values") or [float("nan")])[0], index)
        prune: bool = handle.should_prune()
        return prune
