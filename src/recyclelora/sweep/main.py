"""A sweep from its options to its summary."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from recyclelora.errors import UserError
from recyclelora.progress import shown as shown_path
from recyclelora.provenance import command_line
from recyclelora.storage import locked, read_json, set_aside, taking_turns, write_json
from recyclelora.sweep import snapshot
from recyclelora.sweep.batches import BatchExecutor, Recorded
from recyclelora.sweep.driver import ASK_LOCK, Driver, Plan, best_trials
from recyclelora.sweep.estimate import in_words
from recyclelora.sweep.execution import Executor, Work
from recyclelora.sweep.executors import make_executor, read_options
from recyclelora.sweep.goals import DIRECTIONS, TUNED, Constraint, tuned_on_targets
from recyclelora.sweep.ledger import DRIVER_LOCK, Ledger
from recyclelora.sweep.options import LocalOptions, SlurmOptions
from recyclelora.sweep.samplers import CONSTRAINED, make_pruner, make_sampler, sampler_name
from recyclelora.sweep.space import Space, discrete, grid_space, search_space
from recyclelora.sweep.study import finished_trials, open_study, shown, storage_url
from recyclelora.sweep.table import SweepTable, count_states, what
from recyclelora.sweep.task import HydraTask

SOME_FAILED, TOO_MANY_FAILED, STOPPED = 3, 4, 128
"""Exit codes: some trials failed; no new ones after ``max_failures``; 128 + the signal that stopped the driver."""

DEFAULT_TRIALS = 20


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
    _check(options)
    folder = Path(config.hydra.sweep.dir).absolute()
    fresh = bool(OmegaConf.select(config, "fresh", default=False))
    if options["snapshot"] == "on" and not fresh and snapshot.exists(folder):
        snapshot.enter(folder)  # its own code checks its trials, not what the checkout has become
    space, planned, n_trials = _what_to_try(options, context, arguments)
    name = str(options["study_name"] or folder.name)
    directions = [str(d) for d in _listed(options["direction"])]
    task = HydraTask(context, function, _without_secrets(config))
    unvaried = [key for key in options["confirm_by"] if key not in space.distributions]
    if unvaried:
        raise UserError(f"hydra.sweeper.confirm_by: the sweep does not vary {unvaried[0]}")
    validate(space, task)
    launcher = _launcher(config)
    running = read_options(launcher)  # a bad value is refused before anything is written
    if options["dry_run"]:
        _dry_run(space, planned, n_trials, config, options)
        _show_script(launcher, task, folder, name)
        return []
    _make_folder(folder, fresh=fresh)
    if options["snapshot"] != "off":
        snapshot.enter(folder, renew=options["snapshot"] == "renew")
    if options["detach"]:
        _detach(running, folder, name)
        return []
    url = storage_url(options["storage"], folder)
    shared = url is not None and not url.startswith("sqlite")
    with _only_driver(folder, shared):
        ledger = Ledger(folder)
        earlier = finished_trials(options["warm_start"]) if options["warm_start"] else []
        about = _described(options, space, config, directions, n_trials, name)
        _record(folder, about)
        OmegaConf.save(task.config, folder / "multirun.yaml")  # as Hydra's own sweeper does
        with taking_turns(folder / ASK_LOCK):
            searched = [trial for trial in ledger.trials() if trial.kind == "search"]
            study, remarks = open_study(url, name, directions, searched, earlier)
        pruner = make_pruner(options["pruner"])
        if pruner is not None:
            study.pruner = pruner
        plan = _plan(options, space, planned, n_trials, config, shared)
        executor = make_executor(
            launcher, task, options["objectives"], folder, options["n_jobs"], name
        ) or _batches(context, function, config, options)  # fmt: skip
        with _feeding(function, folder, config) as feeder:
            with SweepTable(name, n_trials, tuned=about["tuned_on_targets"]) as table:
                for remark in remarks:
                    table.event(remark)
                driver = Driver(plan, study, ledger, executor, table)
                began = time.monotonic()
                driver.run()
                executor.close()
            code = _finish(driver, table, folder, about, url, time.monotonic() - began)
        if feeder is not None and not feeder.sent:
            table.event(f"MLflow does not have everything; later: python -m recyclelora.tracking sync {folder}")
    if code:
        sys.exit(code)
    returns = getattr(executor, "returns", {})
    ordered = [t.unit_folder(unit) for t in driver.trials.values() for unit in range(len(t.units))]
    return [[returns[unit] for unit in ordered if unit in returns]]


# --- before the first job ---------------------------------------------------------------------------------------------


def _check(options: Mapping[str, Any]) -> None:
    """Refuse values that make no sense, all at once."""
    bad = [f"hydra.sweeper.{k}={options[k]}: must be at least 1" for k in ("n_jobs", "repeats") if options[k] < 1]
    bad += [f"hydra.sweeper.{k}={options[k]}: must not be negative"
            for k in ("max_retries", "confirm") if options[k] < 0]  # fmt: skip
    if options["n_trials"] is not None and options["n_trials"] < 1:
        bad.append(f"hydra.sweeper.n_trials={options['n_trials']}: must be at least 1")
    if options["max_failures"] is not None and options["max_failures"] < 1:
        bad.append(f"hydra.sweeper.max_failures={options['max_failures']}: must be at least 1")
    if options["snapshot"] not in ("on", "off", "renew"):
        bad.append(f"hydra.sweeper.snapshot={options['snapshot']}: on, off or renew")
    directions = _listed(options["direction"])
    bad += [f"hydra.sweeper.direction={d}: maximize or minimize" for d in directions if str(d) not in DIRECTIONS]
    objectives = options["objectives"]
    if objectives is not None and len(objectives) != len(directions):
        bad.append(
            f"hydra.sweeper.objectives: {len(objectives)} of them, but {len(directions)} in hydra.sweeper.direction"
        )
    if options["pruner"] and len(directions) > 1:
        bad.append("hydra.sweeper.pruner: Optuna prunes sweeps with one objective only")
    if options["pruner"] and options["pruner"].get("kind") == "wilcoxon" and options["repeats"] < 2:
        bad.append("hydra.sweeper.pruner=wilcoxon: compares seeds; set hydra.sweeper.repeats to 2 or more")
    bad += [f"hydra.sweeper.points.{name}: {name!r} is no plain name"
            for name in options["points"] if not re.fullmatch(r"[\w.+-]+", name)]  # fmt: skip
    if options["confirm"] and not options["confirm_seeds"]:
        bad.append("hydra.sweeper.confirm_seeds: empty")
    if options["sampler"] is None and options["n_trials"] is not None:
        bad.append("hydra.sweeper.n_trials: a grid is as long as it is; for a search add hydra/sweeper/sampler=tpe")
    if options["max_failure_rate"] != 1.0:
        bad.append("hydra.sweeper.max_failure_rate: there are no batches here; use hydra.sweeper.max_failures")
    if bad:
        raise UserError("\n".join(bad))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _what_to_try(
    options: Mapping[str, Any], context: HydraContext, arguments: Sequence[str]
) -> tuple[Space, list[dict[str, Any]], int]:
    """The space, the points planned in advance, and the number of trials."""
    loader, sampler, given = context.config_loader, options["sampler"], options["n_trials"]
    if sampler is None:
        if options["conditions"]:
            raise UserError("hydra.sweeper.conditions: need a sampler: add hydra/sweeper/sampler=tpe")
        space = grid_space(arguments, options["params"], loader).with_points(options["points"])
        planned = space.grid()
        return space, planned, len(planned)
    space = search_space(arguments, options["params"], options["conditions"], loader).with_points(options["points"])
    if not space.distributions:
        raise UserError("hydra.sweeper.params: nothing varies; give choices or intervals, such as adapter.alpha=1,2")
    if sampler_name(sampler) == "GridSampler":
        planned = space.grid()
        n_trials = min(len(planned), given or len(planned))
        return space, planned[:n_trials], n_trials
    unknown = [key for point in options["enqueue"] for key in point if key not in space.distributions]
    if unknown:
        raise UserError(f"hydra.sweeper.enqueue: {unknown[0]} is not varied by this sweep")
    for point in options["enqueue"]:
        for key, value in point.items():
            distribution = space.distributions[key]
            try:
                inside = distribution._contains(distribution.to_internal_repr(value))
            except ValueError:
                inside = False
            if not inside:
                raise UserError(f"hydra.sweeper.enqueue: {key}={value} lies outside of {distribution}")
    return space, list(options["enqueue"]), given or DEFAULT_TRIALS


def validate(space: Space, task: HydraTask) -> None:
    """Compose and check the configurations that trials may have, before the first one starts.

    Raises:
        UserError: naming the trial and what is wrong with it.
    """
    check = getattr(task.function, "check", lambda node: None)
    for params in space.probes():
        overrides = space.overrides(params)
        try:
            check(task.context.config_loader.load_sweep_config(task.config, overrides))
        except Exception as error:
            text = getattr(task.function, "explain", str)(error)
            raise UserError(f"a trial with {', '.join(space.varied(params)) or 'nothing varied'}: {text}") from error


SECRET = ("storage", "warm_start")
"""Keys of ``hydra.sweeper`` that may hold a password; jobs never open the study."""


def _without_secrets(config: DictConfig) -> DictConfig:
    """The configuration that jobs get and that launchers may write to files."""
    config = config.copy()
    keys = [f"hydra.sweeper.{key}" for key in SECRET if key in config.hydra.sweeper]
    with read_write(config.hydra), open_dict(config):
        # as overrides too: a job composes anew and must arrive at the same sweeper
        kept = [text for text in config.hydra.overrides.hydra if text.lstrip("+").partition("=")[0] not in keys]
        config.hydra.overrides.hydra = [*kept, *(f"{key}=null" for key in keys)]
        for key in keys:
            OmegaConf.update(config, key, None)
    return config


def _dry_run(
    space: Space, planned: Sequence[Mapping[str, Any]], n_trials: int, config: DictConfig, options: Mapping[str, Any]
) -> None:
    """Print what would be run, and how long it would take."""
    for index, params in enumerate(planned[:n_trials]):
        print(f"trial {index}: {' '.join(space.varied(params))}")
    chosen = n_trials - len(planned[:n_trials])
    if chosen > 0:
        print(f"{chosen} trials chosen by the sampler from:")
        for key, distribution in space.distributions.items():
            print(f"  {key}: {distribution}")
    print(f"fixed: {' '.join(space.fixed.values())}")
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    groups = math.prod(len(discrete(key, space.distributions[key])) for key in options["confirm_by"])
    runs = n_trials * options["repeats"] + options["confirm"] * groups * len(options["confirm_seeds"])
    outputs = Path(str(OmegaConf.select(config, "output_dir", default="outputs")))
    print(in_words(outputs, {str(k): v for k, v in plain.items()}, runs, config.hydra.launcher.get("timeout_min")))
    print(f"all values compose; nothing was started. Folder: {config.hydra.sweep.dir}")


def _make_folder(folder: Path, *, fresh: bool) -> None:
    if fresh and folder.exists() and os.environ.get(snapshot.VARIABLE) is None:
        with _only_driver(folder):
            set_aside(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created: {error.strerror}; set output_dir") from error


def _show_script(launcher: Mapping[str, Any], task: HydraTask, folder: Path, name: str) -> None:
    executor = make_executor(launcher, task, None, folder, 1, name)
    script = getattr(executor, "script", None)
    if script is not None:
        print(f"what sbatch would get:\n\n{script(Work(0, folder, 1, []))}")


def _detach(running: LocalOptions | SlurmOptions | None, folder: Path, name: str) -> None:
    """Let a SLURM job be the driver."""
    if not isinstance(running, SlurmOptions):
        raise UserError("hydra.sweeper.detach=true: only SLURM can run the driver as a job: add hydra/launcher=slurm")
    from recyclelora.sweep.slurm import detach

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


def _described(
    options: Mapping[str, Any], space: Space, config: DictConfig, directions: list[str], n_trials: int, name: str
) -> dict[str, Any]:
    """The content of ``study.json``."""
    base = OmegaConf.to_container(config, resolve=False)
    assert isinstance(base, dict)
    base.pop("hydra")
    plain = {str(key): value for key, value in base.items()}
    return {
        "name": name,
        "directions": directions,
        "objectives": options["objectives"] or [str(plain.get("objective", "value"))],
        "tuned_on_targets": tuned_on_targets(options["objectives"], plain),
        "sampler": None if options["sampler"] is None else sampler_name(options["sampler"]),
        "pruner": (options["pruner"] or {}).get("kind"),
        "n_trials": n_trials,
        "repeats": options["repeats"],
        "constraints": options["constraints"],
        "fixed": list(space.fixed.values()),
        "space": {key: str(distribution) for key, distribution in space.distributions.items()},
        "conditions": options["conditions"],
        "warm_start": options["warm_start"] is not None,
        "command": command_line(),
        "config": plain,
    }


MAY_CHANGE = ("n_trials", "command", "created", "pruner", "warm_start", "fixed")
"""Entries of ``study.json`` with which the same study may go on."""


def _record(folder: Path, about: dict[str, Any]) -> None:
    """Write ``study.json``; a study goes on only with what it was begun with.

    Raises:
        UserError: naming what differs.
    """
    path = folder / "study.json"
    if path.exists():
        stored = read_json(path)
        differences = [
            text for key in about if key not in MAY_CHANGE for text in _differences(key, stored.get(key), about[key])
        ]
        if differences:
            raise UserError(
                f"{folder.name}: was begun with other settings; give it another name with study=, or start over with "
                "fresh=true:\n" + "\n".join(f"  {text}" for text in differences[:10])
            )
        about["created"] = stored["created"]
    else:
        about["created"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_json(path, about)


FREE = (
    "config.output_dir", "config.cache", "config.fresh", "config.study", "config.tracking", "config.factor_cache_gib",
    "config.trainer.num_workers", "config.trainer.log_every", "config.data.root", "config.data.decode_cache",
)  # fmt: skip
"""Settings that change no result."""


def _differences(key: str, before: Any, after: Any) -> Iterator[str]:
    if key in FREE:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            yield from _differences(f"{key}.{name}", before.get(name), after.get(name))
    elif before != after:
        yield f"{key.removeprefix('config.')}: was {before}, now {after}"


def _plan(
    options: Mapping[str, Any], space: Space, planned: list[dict[str, Any]], n_trials: int, config: DictConfig,
    shared: bool,
) -> Plan:  # fmt: skip
    sampler = options["sampler"]
    searching = sampler is not None and sampler_name(sampler) != "GridSampler"
    constraints = [Constraint.parse(text) for text in options["constraints"]]
    if constraints and searching and sampler_name(sampler) not in CONSTRAINED:
        raise UserError(f"hydra.sweeper.constraints: {sampler_name(sampler)} knows none; take tpe, gp, nsgaii, nsgaiii")
    seed = int(OmegaConf.select(config, "seed", default=0))
    kind = (options["pruner"] or {}).get("kind")

    def ask(number: int) -> Any:
        return make_sampler(sampler, number, parallel=options["n_jobs"] > 1, constrained=bool(constraints))

    if searching:
        ask(0)  # a bad option is refused before the first job
    return Plan(
        space, n_trials, planned, ask if searching else None,
        seeds=[seed + i for i in range(options["repeats"])] if options["repeats"] > 1 else None,
        prunes=kind is not None, across_repeats=kind == "wilcoxon",
        constraints=constraints, max_retries=options["max_retries"], max_failures=options["max_failures"],
        retry_failed=options["retry_failed"], confirm=options["confirm"],
        confirm_by=options["confirm_by"], confirm_seeds=options["confirm_seeds"],
        shared=shared,
    )  # fmt: skip


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
    counts = count_states(list(driver.trials.values()))
    best = best_trials(driver.searched, about["directions"])
    stopped = driver.stop is not None
    limit = driver.plan.max_failures
    code = (
        STOPPED + (driver.stop or 0) if stopped
        else TOO_MANY_FAILED if driver.too_many_failures
        else SOME_FAILED if driver.failures()
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
    table.summary(driver)
    say = table.console.print
    if best and about["sampler"]:
        say(f"best: trial {best[0].number} ({what(best[0])})" + (f", {TUNED}" if about["tuned_on_targets"] else ""))
    say(
        f"trials: {', '.join(f'{n} {state}' for state, n in counts.items() if n)}; files: {shown_path(folder)}",
        markup=False,
    )
    if stopped:
        say(f"stopped by signal {driver.stop}: the same command goes on from here")
    elif driver.too_many_failures:
        say(f"no new trials after {driver.failures()} failures (hydra.sweeper.max_failures={limit})")
    if url is not None and best:
        say(f"live view: optuna-dashboard {shown(url)}", markup=False)
    return code
