"""What a sweep would run, and how long that takes, from what like runs have taken here; nothing is started."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recyclelora.runs.directory import RECORD, RESULT
from recyclelora.sweep.cost import duration
from recyclelora.sweep.execution import Executor, Work
from recyclelora.sweep.ledger import COMPLETE, Trial
from recyclelora.sweep.planning import Plan, units_of
from recyclelora.sweep.space import discrete

MOST = 500
"""Runs that are looked at, the latest first."""


def dry_run(
    plan: Plan, config: DictConfig, executor: Executor | None, folder: Path, known: Sequence[Trial] = ()
) -> None:
    """Print what would be run, how long it would take, and what sbatch would get; ``known`` are the ledger's trials."""
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
    there = complete(plan, known)
    if there:
        print(f"complete already: {there} of {plan.n_trials} trials")
    phases = [(plan.n_trials - there) * len(plan.seeds or [0]), plan.confirm * groups * len(plan.confirm_seeds)]
    if plan.race is not None:
        entrants = plan.confirm * groups if plan.confirm else len(plan.planned)
        least = plan.race.least(entrants)
        print(f"race: {entrants} entrants, each on {least} to {plan.race.seeds} seeds; the most is counted below")
        phases = [phases[0] if plan.confirm else 0, entrants * plan.race.seeds]
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


def complete(plan: Plan, known: Sequence[Trial]) -> int:
    """How many of the trials that are asked for are in the ledger with their results."""
    done = [trial for trial in known if trial.state == COMPLETE and not trial.confirms]
    if plan.planned and plan.n_trials == len(plan.planned):  # a grid, whose values may be others now
        wanted = {plan.identity(units_of(plan.space.overrides(point), plan.seeds)[0]) for point in plan.planned}
        return len(wanted & {trial.identity or plan.identity(plan.in_full(trial.units[0])) for trial in done})
    return min(len(done), plan.n_trials)


def seconds_of_like_runs(outputs: Path, config: Mapping[str, Any]) -> list[float]:
    """Seconds of finished runs below ``outputs`` of the same backbone, decoder, data and number of steps.

    Args:
        outputs: the folder of all runs and sweeps
        config: the composed configuration, as plain values
    """
    wanted = {name: config.get(name, {}).get("name") for name in ("backbone", "decoder", "data")}
    steps = config.get("trainer", {}).get("max_steps")
    results = [*outputs.glob(f"runs/*/{RESULT}"), *outputs.glob(f"sweeps/*/*/**/{RESULT}")]
    found = []
    for path in sorted(results, key=lambda p: p.stat().st_mtime, reverse=True)[:MOST]:
        try:
            result, about = json.loads(path.read_text()), json.loads((path.parent / RECORD).read_text())
        except (OSError, ValueError):
            continue
        if result.get("steps") == steps and all(about.get(name) == value for name, value in wanted.items()):
            found.append(float(result["seconds"]))
    return found


def in_words(
    outputs: Path, config: Mapping[str, Any], phases: Sequence[int], limit_min: float | None, at_a_time: int
) -> str:
    """An estimate of how long the runs take, or an upper bound, or the admission that there is none.

    Args:
        outputs: the folder of all runs and sweeps
        config: the composed configuration, as plain values
        phases: numbers of runs; a phase begins when the one before has ended
        limit_min: minutes after which a run is ended
        at_a_time: how many run side by side
    """
    runs = sum(phases)
    if not runs:
        return "nothing is left to run"
    known = seconds_of_like_runs(outputs, config)
    if known:
        each = statistics.median(known)
        told = f"{runs} runs of {duration(each)}, the median of {len(known)} like runs here"
        side_by_side = min(at_a_time, max(phases))
        if side_by_side == 1:
            return f"about {duration(runs * each)}: {told}"
        rounds = sum(math.ceil(phase / side_by_side) for phase in phases)
        return f"about {duration(rounds * each)}, {side_by_side} at a time ({duration(runs * each)} of runs): {told}"
    if limit_min is not None:
        return f"at most {duration(60 * limit_min * runs)} of runs: {runs} runs within timeout_min={limit_min:g}"
    return f"{runs} runs; how long they take is not known here yet: no like run has finished"
