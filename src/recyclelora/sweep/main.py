"""A sweep from its options to its summary."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from recyclelora.config.launchers import LocalOptions, SlurmOptions
from recyclelora.config.option_files import TRUSTED, place_chosen_by
from recyclelora.sweep import snapshot
from recyclelora.sweep.batches import BatchExecutor, Recorded
from recyclelora.sweep.driver import Driver
from recyclelora.sweep.estimate import in_words
from recyclelora.sweep.execution import Executor, Work
from recyclelora.sweep.executors import make_executor, read_options
from recyclelora.sweep.goals import TUNED
from recyclelora.sweep.ledger import DRIVER_LOCK, Ledger, read_study
from recyclelora.sweep.planning import Plan, check_options, fit_grid, listed, make_plan, validate
from recyclelora.sweep.record import described, options_since, other_values, record
from recyclelora.sweep.samplers import make_pruner
from recyclelora.sweep.search import best_trials
from recyclelora.sweep.space import discrete
from recyclelora.sweep.steering import busy, one_at_a_time
from recyclelora.sweep.study import forget, open_study, shown, storage_url
from recyclelora.sweep.table import SweepTable, count_states
from recyclelora.sweep.task import HydraTask
from recyclelora.sweep.warm_start import read_warm_start
from recyclelora.system.errors import UserError
from recyclelora.system.progress import shown as shown_path
from recyclelora.system.storage import locked, set_aside, write_json

OURS = ("study.json", "ledger", snapshot.FOLDER)
"""A folder with one of these is a sweep's."""
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
        _own_place(folder)
        # its own code checks its trials, not what the checkout has become
        snapshot.enter(folder, changing=snapshot.changes(config))
    url = storage_url(options["storage"], folder)
    shared = url is not None and not url.startswith("sqlite")
    plan = make_plan(options, context, arguments, config, shared=shared)
    name = str(options["study_name"] or folder.name)
    directions = [str(d) for d in listed(options["direction"])]
    task = HydraTask(context, function, _without_secrets(config))
    plan = replace(plan, identity=task.identity)
    validate(plan.space, task)
    earlier, unfit = read_warm_start(options["warm_start"], plan.space, directions)
    said = [*plan.space.remarks, *unfit]
    launcher = _launcher(config)
    running = read_options(launcher)  # a bad value is refused before anything is written
    if options["dry_run"]:
        print("".join(f"{remark}\n" for remark in said), end="")
        _dry_run(plan, config, make_executor(launcher, task, None, folder, options["n_jobs"], name), folder)
        return []
    before = _began(folder)
    if _make_folder(folder, fresh=fresh) and url is not None and shared:
        forget(url, name, before)
    if options["snapshot"] != "off":
        if place_chosen_by() is not None and not snapshot.exists(folder):
            snapshot.note_own(folder)
        renew = options["snapshot"] == "renew"
        snapshot.enter(folder, renew=renew, changing=snapshot.changes(config))
    if options["detach"]:
        _detach(running, folder, name)
        return []
    with _only_driver(folder, shared):
        ledger = Ledger(folder)
        about = described(options, plan, config, directions, name)
        since = dict(options_since(config))
        moved = fit_grid(ledger, plan) if (widened := other_values(folder, about, since)) else []
        record(folder, about, since)
        OmegaConf.save(task.config, folder / "multirun.yaml")  # as Hydra's own sweeper does
        with one_at_a_time(folder, shared=shared):
            searched = [trial for trial in ledger.trials() if not trial.confirms]
            unread = list(ledger.remarks)
            ledger.set_unreadable_aside()
            own = options["storage"] is None
            study, remarks = open_study(
                url, name, directions, searched, earlier, widened=widened, own=own, mark=about["created"]
            )

        def in_memory() -> optuna.Study:
            known = [trial for trial in ledger.trials() if not trial.confirms]
            return open_study(None, name, directions, known, earlier, own=True)[0]

        pruner = make_pruner(options["pruner"])
        if pruner is not None:
            study.pruner = pruner
        executor = make_executor(
            launcher, task, options["objectives"], folder, options["n_jobs"], name
        ) or _batches(context, function, config, options)  # fmt: skip
        with _feeding(function, folder, config) as feeder:
            with SweepTable(name, tuned=about["tuned_on_targets"]) as table:
                for remark in [*said, *moved, *unread, *remarks]:
                    table.event(remark)
                driver = Driver(plan, study, ledger, executor, table, None if shared else in_memory)
                began = time.monotonic()
                driver.run()
                executor.close()
            code = _finish(driver, table, folder, about, url, time.monotonic() - began)
        if feeder is not None and not feeder.sent:
            table.event(f"MLflow does not have everything; later: python -m recyclelora.tracking sync {folder}")
    if code:
        sys.exit(code)
    returns = getattr(executor, "returns", {})
    ordered = [t.unit_folder(unit) for t in driver.search.trials.values() for unit in range(len(t.units))]
    return [[returns[unit] for unit in ordered if unit in returns]]


# --- before the first job ---------------------------------------------------------------------------------------------

SECRET = ("storage", "warm_start")
"""Keys of ``hydra.sweeper`` that may hold a password; jobs never open the study."""


def _without_secrets(config: DictConfig) -> DictConfig:
    """The configuration that jobs get and that launchers may write to files."""
    config = config.copy()
    keys = [f"hydra.sweeper.{key}" for key in SECRET if key in config.hydra.sweeper]
    with read_write(config.hydra), open_dict(config):
        # as overrides too: a job composes anew and must arrive at the same sweeper, with the same interpolations
        given = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
        assert isinstance(given, list)
        kept = [text for text in given if text.lstrip("+").partition("=")[0] not in keys]
        config.hydra.overrides.hydra = [*kept, *(f"{key}=null" for key in keys)]
        for key in keys:
            OmegaConf.update(config, key, None)
    return config


def _dry_run(plan: Plan, config: DictConfig, executor: Executor | None, folder: Path) -> None:
    """Print what would be run, how long it would take, and what sbatch would get."""
    space, planned = plan.space, plan.planned[: plan.n_trials]
    for index, params in enumerate(planned):
        print(f"trial {index}: {' '.join(space.varied(params))}")
    chosen = plan.n_trials - len(planned)
    if chosen > 0:
        print(f"{chosen} trials chosen by the sampler from:")
        for key, distribution in space.distributions.items():
            print(f"  {key}: {distribution}")
    print(f"fixed: {' '.join(space.fixed.values())}")
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    groups = math.prod(len(discrete(key, space.distributions[key])) for key in plan.confirm_by)
    phases = [plan.n_trials * len(plan.seeds or [0]), plan.confirm * groups * len(plan.confirm_seeds)]
    launcher = config.hydra.launcher
    alone = launcher.get("in_process", False)
    at_a_time = executor.capacity if executor is not None else 1 if alone else config.hydra.sweeper.n_jobs
    outputs = Path(str(OmegaConf.select(config, "output_dir", default="outputs")))
    limit = getattr(executor, "limit_min", launcher.get("timeout_min"))
    print(in_words(outputs, {str(k): v for k, v in plain.items()}, phases, limit, at_a_time))
    print(f"all values compose; nothing was started. Folder: {config.hydra.sweep.dir}")
    script = getattr(executor, "script", None)
    if script is not None:
        print(f"what sbatch would get:\n\n{script(Work(0, folder, 1, []))}")


def _own_place(folder: Path) -> None:
    """Make sure that the user, and no file of somebody else's, chose the folder whose code is about to run.

    Raises:
        UserError: naming the file that chose it.
    """
    inside = os.environ.get(snapshot.VARIABLE) == str(folder / snapshot.FOLDER)
    if not inside and (file := place_chosen_by()) is not None and not snapshot.is_noted(folder):
        raise UserError(
            f"{folder}: has code of its own in {snapshot.FOLDER}/, and {file} chose this folder; if both are yours, "
            f"give output_dir= on the command line, or export {TRUSTED}={file}"
        )


def _began(folder: Path) -> str:
    """When the sweep in a folder began; empty where there is none, or nobody can say."""
    try:
        about = read_study(folder)
    except UserError:
        return ""
    return about["created"] if about else ""


def _make_folder(folder: Path, *, fresh: bool) -> bool:
    """Make it; returns whether an earlier sweep was set aside.

    Raises:
        UserError: it cannot be made, or what is there is no sweep, or one that runs.
    """
    aside = fresh and folder.exists() and os.environ.get(snapshot.VARIABLE) is None
    if aside:
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
        if visible and not any((folder / name).exists() for name in OURS):
            raise UserError(f"{folder}: is no sweep of this project, so fresh=true leaves it alone; choose another one")
        if running := busy(folder):
            raise UserError(
                f"{folder}: in use by {', '.join(running[:3])}; stop it first: python -m recyclelora.sweep cancel ..."
            )
        with _only_driver(folder):
            set_aside(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created: {error.strerror}; set output_dir") from error
    return aside


def _detach(running: LocalOptions | SlurmOptions | None, folder: Path, name: str) -> None:
    """Let a SLURM job be the driver."""
    if not isinstance(running, SlurmOptions):
        raise UserError("hydra.sweeper.detach=true: only SLURM can run the driver as a job: add hydra/launcher=slurm")
    from recyclelora.sweep.slurm.driver import detach

    with _only_driver(folder):
        pass  # none runs: the job will be the one
    detach(running, folder, name)


def _launcher(config: DictConfig) -> dict[str, Any]:
    """``hydra.launcher`` as plain values."""
    plain = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _only_driver(folder: Path, shared: bool = False) -> contextlib.AbstractContextManager[None]:
    """Hold the sweep's folder, unless several drivers may share the study."""
    hint = "; several drivers of one study need hydra.sweeper.storage=postgresql://..."
    return contextlib.nullcontext() if shared else locked(folder, DRIVER_LOCK, hint)


def _batches(context: HydraContext, function: TaskFunction, config: DictConfig, options: Mapping[str, Any]) -> Executor:
    from hydra.core.plugins import Plugins

    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=Recorded(function, options["objectives"]),
        config=_without_secrets(config),
    )  # fmt: skip
    return BatchExecutor(launcher, options["n_jobs"])


def _feeding(function: TaskFunction, folder: Path, config: DictConfig) -> contextlib.AbstractContextManager[Any]:
    """What the task wants to run beside a whole sweep, such as the process that feeds MLflow."""
    feed = getattr(function, "beside", None)
    return contextlib.nullcontext() if feed is None else feed(folder, config)


# --- after the last ---------------------------------------------------------------------------------------------------


def _finish(
    driver: Driver, table: SweepTable, folder: Path, about: dict[str, Any], url: str | None, seconds: float
) -> int:
    """Print and write the summary; returns the exit code."""
    counts = count_states(list(driver.search.trials.values()))
    best = best_trials(driver.search.searched, about["directions"])
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
    elif driver.search.too_many_failures:
        say(f"no new trials after {driver.search.failures} failures (hydra.sweeper.max_failures={limit})")
    if url is not None and best:
        say(f"live view: optuna-dashboard {shown(url)}")
    return code
