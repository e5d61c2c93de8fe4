"""From runs to the comparison: groups of seeds, paired differences to a reference, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recyclelora.evaluation.scores import ALONE_TITLE
from recyclelora.reports.bootstrap import Bootstrap
from recyclelora.reports.grouping import group_names, grouped, meant, point_names
from recyclelora.reports.groups import MEAN, SOURCE, Scored, ScoredGroup
from recyclelora.reports.protocols import protocols
from recyclelora.reports.raced_groups import as_raced, race_reference
from recyclelora.reports.records import Study
from recyclelora.reports.statistics import Interval, alike, pooled_p, t_interval
from recyclelora.sweep.race.anytime import ALPHA, Decision, decide, holm
from recyclelora.sweep.race.rules import conclusion
from recyclelora.sweep.record import POINT
from recyclelora.system.checks import nearest
from recyclelora.system.errors import UserError, some


@dataclass(frozen=True)
class Difference:
    """A group minus the reference on their common seeds.

    Attributes:
        seeds: that both have.
        scores: of each target, of `MEAN` and `SOURCE`.
        further: of `WORST`, `WORST_CLASS` and the figures of further metrics, not adjusted.
        p_holm: of `MEAN`, adjusted for all groups that are compared.
        pooled_p_holm: the same with the spread of all groups but outliers; the two that are compared stay in.
        bootstrap: 95 % interval of the same difference when what was scored is drawn anew.
        bootstrap_over: what is drawn: ``images``, ``drives``, both by target, or ``classes``.
        raced: the verdict of the sweep's race, which stands in place of that for a number of seeds fixed beforehand.
        race: of `MEAN`, what may be said by somebody who looks after every seed and stops when it is enough.
    """

    group: ScoredGroup
    seeds: list[int]
    scores: dict[str, Interval]
    further: dict[str, Interval]
    p_holm: float | None = None
    pooled_p_holm: float | None = None
    bootstrap: tuple[float, float] | None = None
    bootstrap_over: str | None = None
    race: Decision | None = None
    raced: str | None = None

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` only where no interval holds zero and no adjusted p is above 0.05."""
        if self.raced is not None:
            return self.raced
        main = self.scores.get(MEAN)
        if main is None:
            return "nothing in common"
        if main.count < 2:
            return "one seed"
        sign = main.sign
        if self.bootstrap is not None and not sign * self.bootstrap[0] > 0 < sign * self.bootstrap[1]:
            sign = 0
        if self.p_holm is None or self.pooled_p_holm is None or max(self.p_holm, self.pooled_p_holm) >= ALPHA:
            sign = 0
        return {1: "better", -1: "worse", 0: "undecided"}[sign]


@dataclass(frozen=True)
class Comparison:
    """What the tables and the page show.

    Attributes:
        groups: that are ranked, the best objective first.
        reference: all others are compared with; None where there is nothing to compare.
        reference_reason: why it is the reference.
        differences: to the reference, in the order of the groups.
        winner: one sentence that claims no more than the intervals allow.
        search: groups of the search, where confirmed ones are ranked instead.
        remarks: what a reader has to know.
    """

    study: Study
    selection: str
    groups: list[ScoredGroup]
    reference: ScoredGroup | None
    reference_reason: str
    differences: list[Difference]
    winner: str
    search: list[ScoredGroup]
    targets: list[str]
    protocols: list[str]
    tuned_on_targets: bool
    remarks: list[str]

    @property
    def alone(self) -> bool:
        """Whether finished runs were scored, and none has targets."""
        return bool(self.groups or self.search) and not self.targets

    @property
    def names(self) -> list[str]:
        """What is scored, what decides first: `MEAN`, `SOURCE` and each target; without targets `MEAN` alone."""
        return [MEAN] if self.alone else [MEAN, SOURCE, *self.targets]

    def title(self, name: str) -> str:
        """How one of `names` is called: without targets `MEAN` is the validation's mIoU."""
        return ALONE_TITLE if name == MEAN and self.alone else name

    @property
    def reference_name(self) -> str:
        """In titles; a dash where there is nothing to compare."""
        return self.reference.name if self.reference is not None else "–"

    @property
    def confirmed(self) -> bool:
        """Whether the ranked runs are reruns on fresh seeds."""
        return bool(self.search)

    @property
    def basis(self) -> str:
        """What every heading names: protocol, checkpoint, and tuning on targets."""
        chosen = " (chosen on the targets)" if self.selection == "best_target" else ""
        parts = [f"protocol {' and '.join(self.protocols) or 'unknown'}", f"checkpoint {self.selection}{chosen}"]
        return ", ".join([*parts, "tuned on targets"] if self.tuned_on_targets else parts)

    @property
    def points(self) -> str | None:
        """What the groups that are called by their points are, such as ``fast is adapter=lora, lr=0.01``."""
        plain = group_names([group.config for group in self.groups])
        named = {g.name: name for g, name in zip(self.groups, plain, strict=True) if not g.name.startswith(name)}
        return "; ".join(f"{name} is {settings}" for name, settings in named.items()) or None

    def difference(self, group: ScoredGroup) -> Difference | None:
        """Of one group; None for the reference."""
        return next((d for d in self.differences if d.group is group), None)


def compare(study: Study, selection: str, reference: str | None, resamples: int) -> Comparison:
    """Group, rank and compare the runs of a study.

    Args:
        study: what was read
        selection: which checkpoint of each run counts
        reference: name of the group the others are compared with, or a part of it that no other has
        resamples: of the bootstrap

    Raises:
        UserError: there is no such reference.
    """
    scored = [Scored(r, t, selection) for t in study.trials for r in t.runs if r.result and t.state != "pruned"]
    missing = [s for s in scored if selection not in s.result["selection"]]
    scored = [s for s in scored if selection in s.result["selection"]]
    targets = list(dict.fromkeys(name for s in scored for name in s.result["selection"][selection]["targets"]))
    if scored and not targets:
        scored = [replace(s, alone=True) for s in scored]
    groups = _grouped(scored)
    confirmed = [g for g in groups if any(run.trial.confirms for run in g.runs)]
    shown, search = groups, list[ScoredGroup]()
    if confirmed:
        shown = [ScoredGroup(g.name, [r for r in g.runs if r.trial.confirms], g.config) for g in confirmed]
        search = [
            ScoredGroup(g.name, kept, g.config) for g in groups if (kept := [r for r in g.runs if not r.trial.confirms])
        ]
    shown.sort(key=lambda g: (not g.feasible, g.objective is None, -(g.objective or 0.0)))
    raced = race_reference(study, shown) if reference is None else None
    chosen, why = raced or _reference(shown, reference)
    bootstrap = Bootstrap(resamples)
    where = "on validation" if scored and not targets else "on the targets"
    differences = [] if chosen is None else _differences(chosen, shown, bootstrap)
    winner = _winner(shown, bootstrap, where) if study.race is None else conclusion(*study.race)
    if chosen is not None and study.race is not None:
        differences = as_raced(study, chosen, differences)
    remarks = [f"{len(missing)} runs have no checkpoint {selection} and are left out"] if missing else []
    digests = {s.result["dataset_digest"] for s in scored}
    known = protocols([s.result for s in scored])
    if len(known) > 1:
        remarks.append(f"runs were scored under different protocols ({', '.join(known)}): their scores do not compare")
    if len(digests) > 1:
        remarks.append("runs were trained or scored on different data")
    steps = {s.result["steps"] for s in scored}
    if len(steps) > 1:
        remarks.append(f"runs were trained for different numbers of steps: {min(steps)} to {max(steps)}")
    if study.is_sweep and not confirmed and len(groups) > 1 and all(len(g.seeds) == 1 for g in groups):
        what = study.kind.lower()
        remarks.append(f"every configuration has one run: a {what} finds candidates, fresh seeds decide between them")
    return Comparison(
        study, selection, shown, chosen, why, differences, winner, search, targets, known,
        study.tuned_on_targets or any(g.tuned_on_targets for g in groups), remarks,
    )  # fmt: skip


def _grouped(scored: Sequence[Scored]) -> list[ScoredGroup]:
    groups = [ScoredGroup(g.name, g.runs, g.config) for g in grouped(scored, lambda one: one.run.config)]
    points = [{run.trial.params.get(POINT) for run in g.runs} for g in groups]
    if all(len(chosen) == 1 and None not in chosen for chosen in points):
        names = point_names([str(next(iter(chosen))) for chosen in points], [g.config for g in groups])
        groups = [replace(g, name=name) for g, name in zip(groups, names, strict=True)]
    return [g if g.feasible else replace(g, name=f"{g.name} (breaks a constraint)") for g in groups]


def _reference(groups: Sequence[ScoredGroup], wanted: str | None) -> tuple[ScoredGroup | None, str]:
    """The group that was asked for, the frozen backbone, or the best by objective."""
    if wanted is not None:
        names = [g.name for g in groups]
        found = meant(wanted, names)
        hits = [g for g in groups if g.name in found]
        if not hits:  # what a group with the name of a point would be called without
            plain = group_names([g.config for g in groups])
            otherwise = meant(wanted, plain)
            hits = [g for g, name in zip(groups, plain, strict=True) if name in otherwise]
        if len(hits) != 1:
            what = "several groups" if hits else f"no group{nearest(wanted, names)}"
            raise UserError(f"reference={wanted}: {what}; there are: {'; '.join(names[:20])}")
        return hits[0], "as asked"
    frozen = [g for g in groups if g.config.get("adapter.kind") == "frozen"]
    if len(frozen) == 1:
        return frozen[0], "the frozen backbone"
    return (groups[0], "the best by objective") if groups else (None, "")


def _differences(reference: ScoredGroup, groups: Sequence[ScoredGroup], bootstrap: Bootstrap) -> list[Difference]:
    """Of every other group, with the p values adjusted for all of them."""
    found = [_difference(group, reference, bootstrap) for group in groups if group is not reference]
    adjusted = holm([d.scores[MEAN].p if MEAN in d.scores else None for d in found])
    pooled = holm([_pooled(d, reference, groups) for d in found])
    races = decide([_paired(d.group, reference, MEAN, d.seeds) for d in found])
    return [
        replace(d, p_holm=p, pooled_p_holm=q, race=race if MEAN in d.scores else None)
        for d, p, q, race in zip(found, adjusted, pooled, races, strict=True)
    ]


def _pooled(difference: Difference, reference: ScoredGroup, groups: Sequence[ScoredGroup]) -> float | None:
    """`pooled_p` over the groups that have the seeds of a difference.

    Others whose spread is an outlier are left out; the two that are compared are not: a collapsed run of theirs is a
    part of what is not known of their difference.
    """
    seeds = sorted(difference.group.values(MEAN).keys() & reference.values(MEAN).keys())
    if len(seeds) < 2:
        return None
    own = [difference.group, reference]
    others = [g for g in groups if g is not own[0] and g is not reference and g.feasible]
    values = [g.values(MEAN) for g in own + others]
    scores = np.array([[known[seed] for seed in seeds] for known in values if known.keys() >= set(seeds)])
    kept = alike(scores)
    kept[:2] = True
    return pooled_p([difference.scores[MEAN].mean], scores[kept])[0]


def _difference(group: ScoredGroup, reference: ScoredGroup, bootstrap: Bootstrap) -> Difference:
    seeds = sorted(set(group.seeds) & set(reference.seeds))
    scores, further = (
        {
            name: t_interval(paired)
            for name in dict.fromkeys(names)
            if (paired := _paired(group, reference, name, seeds))
        }
        for names in (
            [name for run in group.runs for name in run.scores],
            [name for run in group.runs for name in (*run.worst, *run.figures)],
        )
    )
    interval, over = bootstrap.interval(group, reference, seeds)
    return Difference(group, seeds, scores, further, bootstrap=interval, bootstrap_over=over)


def _paired(group: ScoredGroup, reference: ScoredGroup, name: str, seeds: Sequence[int]) -> list[float]:
    mine, theirs = group.values(name), reference.values(name)
    return [mine[seed] - theirs[seed] for seed in seeds if seed in mine and seed in theirs]


def _winner(groups: Sequence[ScoredGroup], bootstrap: Bootstrap, where: str) -> str:
    """Whether the best by objective is better than every other ``where`` they are scored."""
    if len(groups) < 2:
        return "There is nothing to compare." if groups else "No run has finished yet."
    best = groups[0]
    against = _differences(best, groups, bootstrap)
    open_questions = [d.group.name for d in against if d.verdict != "worse"]
    if not open_questions:
        others = against[0].group.name if len(against) == 1 else f"each of the other {len(against)}"
        return f"{best.name} has the best objective and is better {where} than {others}."
    if all(d.scores.get(MEAN) is None or d.scores[MEAN].count < 2 for d in against):
        return f"No winner: {best.name} has the best objective, but fewer than two common seeds decide nothing."
    others = some(open_questions, 3)
    return f"No winner: {best.name} has the best objective, but is not shown to be better {where} than {others}."
