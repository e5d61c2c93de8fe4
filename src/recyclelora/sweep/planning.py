"""From the options of a sweep to the plan that its driver carries out; mistakes are found here, before any job."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler

from recyclelora.runs.record import command_line
from recyclelora.sweep import learning_options as learning
from recyclelora.sweep.budget import Budget
from recyclelora.sweep.goals import DIRECTIONS, Constraint, Objective, tuned_on_targets
from recyclelora.sweep.priors import Priors
from recyclelora.sweep.race.options import make_race, race_record, wrong_race
from recyclelora.sweep.race.rules import Race
from recyclelora.sweep.rungs import KINDS, Rungs
from recyclelora.sweep.samplers import CONSTRAINED, make_sampler, sampler_name
from recyclelora.sweep.space import Space, grid_space, listed, search_space
from recyclelora.sweep.task import HydraTask
from recyclelora.system.errors import UserError

DEFAULT_TRIALS = 20
AS_GIVEN = ("max_retries", "max_failures", "retry_failed", "confirm", "confirm_by", "confirm_seeds")
"""Options that are part of the plan as they are."""


@dataclass(frozen=True)
class Plan:
    """What the driver has to do."""

    space: Space
    n_trials: int
    planned: list[dict[str, Any]]
    """points that are taken before the sampler is asked; a grid's are all"""
    sampler: Callable[[int], BaseSampler] | None
    """trial number -> sampler; None: planned points only"""
    seeds: list[int] | None = None
    """of each trial's repeats; None: one run with the configuration's own seed"""
    prunes: bool = False
    """Optuna's pruner ends running trials"""
    rungs: Rungs | None = None
    """where trials pause"""
    budget: Budget | None = None
    priors: Priors | None = None
    per_second: int | None = None
    """after so many trials the next one is chosen by expected improvement per second"""
    learns_from: int | None = None
    """the sampler learns from the highest rung that so many trials have reached; None: from finished trials"""
    across_repeats: bool = False
    """the pruner compares finished repeats, not the steps of the first one"""
    constraints: list[Constraint] = field(default_factory=list)
    max_retries: int = 2
    max_failures: int | None = None
    retry_failed: bool = False
    confirm: int = 0
    confirm_by: list[str] = field(default_factory=list)
    """parameters: so many of the best for each combination of their values are confirmed"""
    confirm_seeds: list[int] = field(default_factory=list)
    race: Race | None = None
    """what is to be decided on fresh seeds, of which every candidate gets as few as it needs"""
    race_first: list[int] = field(default_factory=list)
    """its first seeds; the others count on"""
    shared: bool = False
    """other drivers may work on the same study"""
    identity: Callable[[Sequence[str]], str] = repr
    """a run's overrides -> equal for those that would train the same"""
    brought_back: list[str] = field(default_factory=list)
    """overrides that give options younger than the sweep the meaning that they had before they were added"""

    @property
    def one_by_one(self) -> bool:
        """Whether repeats run one after another, so that the rest can be spared."""
        return self.prunes or self.rungs is not None

    @property
    def races_at_once(self) -> bool:
        """Whether all points of a grid race, without a search that chooses some."""
        return self.race is not None and not self.confirm

    def race_seed(self, index: int) -> int:
        """Of a race's candidates, the same for all."""
        first = self.race_first
        return first[index] if index < len(first) else max(first) + 1 + index - len(first)

    def in_full(self, overrides: list[str]) -> list[str]:
        """A run's overrides with those of ``brought_back``, also where they are older than these options."""
        given = {_key(text) for text in overrides}
        return [*overrides, *(text for text in self.brought_back if _key(text) not in given)]


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse values that make no sense, all at once."""
    least = {"n_jobs": 1, "repeats": 1, "n_trials": 1, "max_failures": 1, "max_retries": 0, "confirm": 0}
    bad = [
        f"hydra.sweeper.{key}={options[key]}: must {'be at least 1' if low else 'not be negative'}"
        for key, low in least.items() if options[key] is not None and options[key] < low
    ]  # fmt: skip
    bad += [
        f"hydra.sweeper.{part}={options[part]}: parts are chosen with a slash: hydra/sweeper/{part}={options[part]}"
        for part in ("sampler", "pruner") if options[part] is not None and not isinstance(options[part], Mapping)
    ]  # fmt: skip
    if bad:
        raise UserError("\n".join(bad))
    if options["snapshot"] not in ("on", "off", "renew"):
        bad.append(f"hydra.sweeper.snapshot={options['snapshot']}: on, off or renew")
    directions = listed(options["direction"])
    bad += [f"hydra.sweeper.direction={d}: maximize or minimize" for d in directions if str(d) not in DIRECTIONS]
    objectives = options["objectives"]
    if objectives is not None and len(objectives) != len(directions):
        bad.append(
            f"hydra.sweeper.objectives: {len(objectives)} of them, but {len(directions)} in hydra.sweeper.direction"
        )
    for text, direction in zip(objectives or (), directions, strict=False):
        if Objective.parse(str(text)).near is not None and direction != "minimize":
            bad.append(f"hydra.sweeper.direction={direction}: minimize, the distance that {text!r} is")
    bad += learning.unfit(options)
    bad += [f"hydra.sweeper.points.{name}: {name!r} is no plain name"
            for name in options["points"] if not re.fullmatch(r"[\w.+-]+", name)]  # fmt: skip
    if options["confirm"] and not options["confirm_seeds"]:
        bad.append("hydra.sweeper.confirm_seeds: empty")
    bad += wrong_race(options)
    if options["sampler"] is None and options["n_trials"] is not None:
        bad.append("hydra.sweeper.n_trials: a grid is as long as it is; for a search add hydra/sweeper/sampler=tpe")
    if options["max_failure_rate"] != 1.0:
        bad.append("hydra.sweeper.max_failure_rate: there are no batches here; use hydra.sweeper.max_failures")
    if bad:
        raise UserError("\n".join(bad))


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


def validate(space: Space, task: HydraTask, rungs: Rungs | None = None) -> None:
    """Compose and check the configurations that trials may have, before the first one starts.

    Args:
        space: what varies
        task: what trials run
        rungs: where they pause

    Raises:
        UserError: naming the trial and what is wrong with it.
    """
    check = getattr(task.function, "check", lambda node: None)
    for params in space.probes():
        overrides = space.overrides(params)
        try:
            composed = task.context.config_loader.load_sweep_config(task.config, overrides)
            check(composed)
            if rungs is not None:
                rungs.check(OmegaConf.select(composed, "trainer.max_steps"))
        except Exception as error:
            text = getattr(task.function, "explain", str)(error)
            what = ", ".join(space.varied(params)) or "nothing varied"
            raise UserError(f"a trial with {what}: {text}{_whole_numbers(space, params, text)}") from error


def _whole_numbers(space: Space, params: Mapping[str, Any], text: str) -> str:
    """What to write where an interval, which Hydra reads as one of fractions, is meant for an integer."""
    broken = [key for key in params if isinstance(space.distributions.get(key), FloatDistribution) and key in text]
    if not broken or "Integer" not in text:
        return ""
    found = space.distributions[broken[0]]
    assert isinstance(found, FloatDistribution)
    interval = f"interval({math.ceil(found.low)},{math.floor(found.high)})"
    logarithmic = f"tag(log,int({interval}))" if found.log else f"int({interval})"
    return f"; for whole numbers write {broken[0]}={logarithmic}"


def make_plan(
    options: Mapping[str, Any], context: HydraContext, arguments: Sequence[str], config: DictConfig, *, shared: bool
) -> Plan:
    """The plan that options and command line describe.

    Args:
        options: of ``hydra.sweeper``
        context: Hydra's, to see what is a group
        arguments: the command line's overrides of the task
        config: composed without what varies
        shared: whether other drivers may work on the same study

    Raises:
        UserError: a mistake, by the option's name.
    """
    space, planned, n_trials = _what_to_try(options, context, arguments)
    sampler = options["sampler"]
    searching = sampler is not None and sampler_name(sampler) != "GridSampler"
    unvaried = [key for key in options["confirm_by"] if key not in space.distributions]
    if unvaried:
        raise UserError(f"hydra.sweeper.confirm_by: the sweep does not vary {unvaried[0]}")
    constraints = [Constraint.parse(text) for text in options["constraints"]]
    if constraints and searching and sampler_name(sampler) not in CONSTRAINED:
        raise UserError(f"hydra.sweeper.constraints: {sampler_name(sampler)} knows none; take tpe, gp, nsgaii, nsgaiii")
    seed = int(OmegaConf.select(config, "seed", default=0))
    race = make_race(options, space, planned, config)
    kind = (options["pruner"] or {}).get("kind")

    def ask(number: int) -> Any:
        return make_sampler(sampler, number, parallel=options["n_jobs"] > 1, constrained=bool(constraints))

    if searching:
        ask(0)  # a bad option is refused before the first job
    return Plan(
        space, n_trials, planned, ask if searching else None,
        seeds=[seed + i for i in range(options["repeats"])] if options["repeats"] > 1 else None,
        prunes=kind not in (None, *KINDS), across_repeats=kind == "wilcoxon",
        budget=Budget.parse(options["budget"], OmegaConf.select(config, "trainer.max_steps")),
        rungs=learning.make_rungs(options, config), learns_from=learning.learns_from(options),
        per_second=learning.per_second(options),
        constraints=constraints, shared=shared, race=race,
        race_first=[int(s) for s in options["confirm_seeds"]] if options["confirm"] else [seed],
        **{key: options[key] for key in AS_GIVEN},
    )  # fmt: skip


def units_of(overrides: list[str], seeds: Sequence[int] | None) -> list[list[str]]:
    """The runs of a trial: one, or one for each seed."""
    if seeds is None:
        return [overrides]
    others = [text for text in overrides if not text.startswith("seed=")]
    return [[*others, f"seed={seed}"] for seed in seeds]


def described(
    options: Mapping[str, Any], plan: Plan, config: DictConfig, directions: list[str], name: str
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
        "rungs": None if plan.rungs is None else [*plan.rungs.steps, plan.rungs.last],
        "n_trials": plan.n_trials,
        "budget": None if plan.budget is None else str(plan.budget),
        "repeats": options["repeats"],
        "constraints": options["constraints"],
        "fixed": list(plan.space.fixed.values()),
        "space": {key: str(distribution) for key, distribution in plan.space.distributions.items()},
        "conditions": options["conditions"],
        "warm_start": options["warm_start"] is not None,
        "reuse": options["reuse"],
        "race": None if plan.race is None else race_record(plan.race),
        "race_seeds": options["race_seeds"],
        "command": command_line(),
        "config": plain,
    }
