"""Optuna's pruner and running trials: reports go there, the wish to stop comes back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna

from recyclelora.runs.mailbox import Outcome, Unit, read_reports
from recyclelora.sweep.ledger import PRUNED, Trial
from recyclelora.sweep.study import handle_of


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
        self._reported[folder] = size
        handle = handle_of(self.study, trial.number)
        known = self.study._storage.get_trial(handle._trial_id).intermediate_values
        for step, value in read_reports(folder):
            if step not in known:
                handle.report(value, step)
        prune: bool = handle.should_prune()
        if prune:
            Unit(folder).ask_to_stop(PRUNED)
        return prune

    def worse_so_far(self, trial: Trial, outcomes: Sequence[Outcome]) -> bool:
        """Whether a trial's finished repeats are enough to give it up."""
        handle = handle_of(self.study, trial.number)
        for index, outcome in enumerate(outcomes):
            handle.report((outcome.get("values") or [float("nan")])[0], index)
        prune: bool = handle.should_prune()
        return prune
