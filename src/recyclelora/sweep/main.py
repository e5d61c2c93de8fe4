"""A sweep from its options to its summary."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial

from recyclelora.config.launchers import LocalOptions, SlurmOptions
from recyclelora.config.option_files import place_chosen_by
from recyclelora.sweep import snapshot
from recyclelora.sweep.driver import Driver
from recyclelora.sweep.dry_run import dry_run
from recyclelora.sweep.earlier_calls import fit_grid, go_on_as_then
from recyclelora.sweep.earlier_studies import read_warm_start
from recyclelora.sweep.executors import make_executor, read_options, through_launcher
from recyclelora.sweep.folder import began, make_folder, only_driver, own_place
from recyclelora.sweep.goals import TUNED
from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.planning import Plan, check_options, described, make_plan, validate
from recyclelora.sweep.priors import read_priors
from recyclelora.sweep.record import brought_back, options_since, other_values, record, refuse_others
from recyclelora.sweep.samplers import make_pruner
from recyclelora.sweep.space import listed
from recyclelora.sweep.steering import one_at_a_time
from recyclelora.sweep.storage import forget, shown, storage_url
from recyclelora.sweep.study import open_study
from recyclelora.sweep.table import SweepTable, count_states
from recyclelora.sweep.task import HydraTask, without_secrets
from recyclelora.sweep.transfer import Ranges, narrowed
from recyclelora.system.errors import UserError
from recyclelora.system.next_steps import next_steps, typed_as
from recyclelora.system.progress import shown as shown_path
from recyclelora.system.storage import write_json

SOME_FAILED, TOO_MANY_FAILED, STOPPED = 3, 4, 128
"""Exit codes: some trials failed; no new ones after ``max_failures``; 128 + the signal that stopped the driver."""


def sweep(
    options: Mapping[str, Any], context: HydraContext, function: TaskFunction, config: DictConfig,
    arguments: Sequence[str],
) -> list[list[JobReturn]]:  # fmt: skip
    """Run a sweep: what Hydra's sweeper does.

    Args:
        options: of ``hydra.sweeper``
        context: Hydra's
        function: the task
        config: composed without what varies
        arguments: the command line's overrides of the task

    Returns:
        what the jobs returned, where they ran under this very driver; empty otherwise.

    Raises:
        UserError: a mistake, before any job has started.
        SystemExit: with the code that tells how it ended, unless everything is complete.
    """
    check_options(options)
    folder = Path(config.hydra.sweep.dir).absolute()
    fresh = bool(OmegaConf.select(config, "fresh", default=False))
    if options["snapshot"] == "on" and not fresh and snapshot.exists(folder):
        own_place(folder)
        # its own code checks its trials, not what the checkout has become
        snapshot.enter(folder, changing=snapshot.changes(config))
    url = storage_url(options["storage"], folder)
    shared = url is not None and not url.startswith("sqlite")
    plan = make_plan(options, context, arguments, config, shared=shared)
    name = str(options["study_name"] or folder.name)
    task = HydraTask(context, function, without_secrets(config))
    directions = [str(d) for d in listed(options["direction"])]
    space, ranges, moved = narrowed(options["transfer"], plan.space, plan.planned, directions, folder)
    priors = read_priors(options["prior"], space, int(OmegaConf.select(config, "seed", default=0)))
    plan = replace(plan, identity=task.identity, space=space, priors=priors)
    validate(plan.space, task, plan.rungs)
    earlier, unfit = read_warm_start(options["warm_start"], plan.space, directions, config)
    said = [*plan.space.remarks, *moved, *unfit, *([plan.rungs.in_words] if plan.rungs else [])]
    launcher = _launcher(config)
    running = read_options(launcher)  # a bad value is refused before anything is written
    begun = Sweep(options, config, task, plan, folder, name, directions, url, earlier, said, ranges)
    if options["dry_run"]:
        if not fresh:
            refuse_others(folder, *begun.asked())
        print("".join(f"{remark}\n" for remark in said), end="")
        executor = make_executor(launcher, task, None, folder, options["n_jobs"], name)
        dry_run(plan, config, executor, folder, [] if fresh else Ledger(folder).trials())
        return []
    before = began(folder)
    if make_folder(folder, fresh=fresh) and url is not None and shared:
        forget(url, name, before)
    if options["snapshot"] != "off":
        if place_chosen_by() is not None and not snapshot.exists(folder):
            snapshot.note_own(folder)
        snapshot.enter(folder, renew=options["snapshot"] == "renew", changing=snapshot.changes(config))
    if options["detach"]:
        _detach(running, folder, name)
        return []
    with only_driver(folder, shared):
        return begun.run(launcher, context)


@dataclass(frozen=True)
class Sweep:
    """A sweep whose options are checked and whose folder is this process's."""

    options: Mapping[str, Any]
    """of ``hydra.sweeper``"""
    config: DictConfig
    task: HydraTask
    plan: Plan
    folder: Path
    name: str
    directions: list[str]
    url: str | None
    """of the study's storage"""
    earlier: list[FrozenTrial]
    """trials of another study that the sampler knows"""
    remarks: list[str]
    """what a person should know of how the options were read"""
    ranges: Ranges
    """by ``transfer``"""

    def asked(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What ``study.json`` is to say, and the options that earlier versions do not know."""
        about = described(self.options, self.plan, self.config, self.directions, self.name)
        about["transfer"] = {"ranges": self.ranges} if self.ranges else None
        return about, dict(options_since(self.config))

    def run(self, launcher: Mapping[str, Any], context: HydraContext) -> list[list[JobReturn]]:
        """Run it to its end; see :func:`sweep`."""
        options, task, folder = self.options, self.task, self.folder
        ledger = Ledger(folder)
        about, since = self.asked()
        plan = replace(self.plan, brought_back=brought_back(self.plan.space.fixed, since))
        refuse_others(folder, about, since)
        moved = fit_grid(ledger, plan) if (widened := other_values(folder, about, since)) else []
        record(folder, about, since)
        moved += go_on_as_then(ledger, plan)
        OmegaConf.save(task.config, folder / "multirun.yaml")  # as Hydra's own sweeper does
        study, mended = self._study(ledger, widened, about["created"])
        executor = make_executor(
            launcher, task, options["objectives"], folder, options["n_jobs"], self.name
        ) or through_launcher(context, task.function, task.config, options)  # fmt: skip
        with _feeding(task.function, folder, self.config) as followers:
            with SweepTable(self.name, tuned=about["tuned_on_targets"]) as table:
                table.event(f"{self.name}: {about['n_trials']} trials, in {shown_path(folder)}")
                for remark in [*self.remarks, *moved, *mended]:
                    table.event(remark)
                driver = Driver(plan, study, ledger, executor, table, lambda: self._anew(ledger, about["created"]))
                start = time.monotonic()
                driver.run()
                executor.close()
            code = _finish(driver, table, folder, about, self.url, time.monotonic() - start)
        for follower in followers:
            if not follower.sent:
                table.event(follower.unsent())
        if code:
            sys.exit(code)
        returns = getattr(executor, "returns", {})
        ordered = [t.unit_folder(unit) for t in driver.search.trials.values() for unit in range(len(t.units))]
        return [[returns[unit] for unit in ordered if unit in returns]]

    def _study(self, ledger: Ledger, widened: bool, mark: str) -> tuple[optuna.Study, list[str]]:
        """Optuna's study with its pruner, and what was not as it was left."""
        with one_at_a_time(self.folder, shared=self.plan.shared):
            searched = [trial for trial in ledger.trials() if not trial.confirms]
            unread = list(ledger.remarks)
            ledger.set_unreadable_aside()
            study, remarks = open_study(
                self.url, self.name, self.directions, searched, self.earlier,
                widened=widened, own=self.options["storage"] is None, mark=mark,
            )  # fmt: skip
        pruner = make_pruner(self.options["pruner"])
        if pruner is not None:
            study.pruner = pruner
        return study, [*unread, *remarks]

    def _anew(self, ledger: Ledger, mark: str) -> optuna.Study:
        """The study made anew from the ledger: where several drivers share it, else in memory."""
        if self.plan.shared:
            return self._study(ledger, False, mark)[0]
        known = [trial for trial in ledger.trials() if not trial.confirms]
        return open_study(None, self.name, self.directions, known, self.earlier, own=True)[0]


def _detach(running: LocalOptions | SlurmOptions | None, folder: Path, name: str) -> None:
    """Let a SLURM job be the driver."""
    if not isinstance(running, SlurmOptions):
        raise UserError("hydra.sweeper.detach=true: only SLURM can run the driver as a job: add hydra/launcher=slurm")
    from recyclelora.sweep.slurm.driver import detach

    with only_driver(folder):
        pass  # none runs: the job will be the one
    detach(running, folder, name)


def _launcher(config: DictConfig) -> dict[str, Any]:
    """``hydra.launcher`` as plain values."""
    plain = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _feeding(function: TaskFunction, folder: Path, config: DictConfig) -> contextlib.AbstractContextManager[Any]:
    """What the task wants to run beside a whole sweep, such as the process that feeds MLflow."""
    feed = getattr(function, "beside", None)
    return contextlib.nullcontext([]) if feed is None else feed(folder, config)


def _finish(
    driver: Driver, table: SweepTable, folder: Path, about: dict[str, Any], url: str | None, seconds: float
) -> int:
    """Print and write the summary; returns the exit code."""
    counts = count_states(list(driver.search.trials.values()))
    best = driver.search.ranked(driver.search.searched)
    stopped = driver.stop is not None
    limit = driver.plan.max_failures
    code = (
        STOPPED + (driver.stop or 0) if stopped
        else TOO_MANY_FAILED if driver.search.too_many_failures
        else SOME_FAILED if driver.search.failures
        else 0
    )  # fmt: skip
    summary = {
        "study": about["name"],
        "counts": counts,
        "exit_code": code,
        "seconds": round(seconds, 1),
        "tuned_on_targets": about["tuned_on_targets"],
        "best": None
        if not best
        else {"trial": best[0].number, "values": best[0].values, "overrides": best[0].overrides},
    }
    write_json(folder / "summary.json", summary)
    table.summary(driver.search)
    say = table.console.print
    if best and about["sampler"]:
        say(
            f"best: trial {best[0].number} ({', '.join(best[0].overrides)})"
            + (f", {TUNED}" if about["tuned_on_targets"] else "")
        )
    say(f"trials: {', '.join(f'{n} {state}' for state, n in counts.items() if n)}; files: {shown_path(folder)}")
    if stopped:
        say(f"stopped by signal {driver.stop}: the same command goes on from here")
    elif driver.search.broke:
        say(f"the budget of {driver.plan.budget} is used: the same command with a larger one goes on from here")
    elif driver.search.too_many_failures:
        say(f"no new trials after {driver.search.failures} failures (hydra.sweeper.max_failures={limit})")
    if url is not None and best:
        say(f"live view: optuna-dashboard {shown(url)}")
    if best:
        say(next_steps(("compare the trials", typed_as("report", f"sweep={shown_path(folder)}"))))
    return code
