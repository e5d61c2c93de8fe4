"""Groups of a report in the race that their sweep has run: who stands how, and what that says of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from recyclelora.reports.groups import ScoredGroup
from recyclelora.reports.records import Study
from recyclelora.sweep.race.rules import Standing, between, ranked

if TYPE_CHECKING:
    from recyclelora.reports.comparison import Difference


def race_reference(study: Study, groups: Sequence[ScoredGroup]) -> tuple[ScoredGroup, str] | None:
    """The first reference of the sweep's race; of a race for the best, whose mean is best so far."""
    if study.race is None:
        return None
    race, standings = study.race
    order = ranked(race, standings) if race.for_best else [s for s in standings if s.entrant.reference]
    for standing in order:
        for group in groups:
            if standing_of(study, group) is standing:
                return group, "the best mean so far" if race.for_best else "the reference of the race"
    return None


def as_raced(study: Study, reference: ScoredGroup, differences: Sequence[Difference]) -> list[Difference]:
    """With the race's verdicts, which may be looked at although its seeds were not fixed beforehand."""
    against = standing_of(study, reference)
    found = []
    for d in differences:
        standing = standing_of(study, d.group)
        if standing is None or against is None:
            found.append(replace(d, raced="not in the race", race=None))
        else:
            decision = between(standing, against)
            beaten = standing.lost_to is not None  # of a race for the best: by whomever
            raced = decision.verdict if decision else "worse" if beaten else "not compared in the race"
            found.append(replace(d, raced=raced, race=decision))
    return found


def standing_of(study: Study, group: ScoredGroup) -> Standing | None:
    """How a group stands in the sweep's race."""
    numbers = {run.trial.number for run in group.runs if run.trial.confirms}
    return next((s for s in study.race[1] if s.entrant.number in numbers), None) if study.race is not None else None
