"""A race: candidates get seeds one at a time until each comparison is decided; what its standings are, and why.

The comparisons are those of every candidate with each reference, or, where the best is wanted, of every two
candidates; all of them together are wrong with a chance of at most ``alpha``, whenever one looks and whichever
candidate has stopped (:mod:`recyclelora.sweep.race.anytime`). Candidates run the same seeds in the same order, so that
each difference is one of a pair.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from recyclelora.sweep.race.anytime import Decision, decide, least_seeds

BEST = "best"
"""As the only reference: find the best of all."""
OBJECTIVE = "objective"
"""What a trial's run returns, instead of a figure of its ``result.json``."""


@dataclass(frozen=True)
class Race:
    """What is to be decided."""

    references: tuple[str, ...]
    """values of what the sweep varies, such as ``adapter=frozen`` or ``frozen``; or only `BEST`"""
    on: str
    """what is compared: a dotted figure of ``result.json``, or `OBJECTIVE`"""
    alpha: float
    """the chance of any false claim"""
    seeds: int
    """the most that a candidate gets"""
    higher: bool = True
    """whether more of it is better"""

    @property
    def for_best(self) -> bool:
        """Whether it looks for the best instead of comparing with references."""
        return self.references == (BEST,)

    def least(self, entrants: int) -> int:
        """Seeds that every candidate needs before anything can be decided: they may run side by side."""
        return min(self.seeds, least_seeds(self.alpha / max(1, self.comparisons(entrants))))

    def comparisons(self, entrants: int) -> int:
        """How many claims are made at most."""
        if self.for_best:
            return entrants * (entrants - 1) // 2
        return sum(entrants - 1 - place for place in range(len(self.references)))


def is_named(text: str, params: Mapping[str, Any]) -> bool:
    """Whether a text, such as ``adapter=frozen`` or ``frozen``, names one of the values of a trial, or all of them."""
    whole = [f"{key}={value}" for key, value in params.items()]
    return text in whole or text in map(str, params.values()) or text.replace(" ", "") == ",".join(whole)


@dataclass(frozen=True)
class Entrant:
    """A candidate or a reference."""

    name: str
    values: tuple[float, ...]
    """of its seeds, in order, as far as all before them have finished"""
    reference: bool = False
    failed: bool = False
    """it gets no more seeds, whatever is decided"""
    number: int = 0
    """of its trial"""


@dataclass(frozen=True)
class Standing:
    """How one entrant stands."""

    entrant: Entrant
    against: dict[str, Decision] = field(default_factory=dict)
    """name -> what is known: of each reference; where the best is wanted, of the strongest rival or who was better"""
    waits_for: tuple[int, ...] = ()
    """places of the entrants with which its comparison is open: without any, it gets no more seeds"""
    won: bool = False
    """of a race for the best: all others are shown to be worse than somebody"""
    lost_to: str | None = None
    """of a race for the best: who is shown to be better"""

    @property
    def verdict(self) -> str:
        """In a word; with several references the one against the first."""
        if self.won or self.lost_to is not None:
            return "best" if self.won else "worse"
        return next((decision.verdict for decision in self.against.values()), "undecided")

    @property
    def over(self) -> bool:
        """Whether it needs no more seeds."""
        return not self.waits_for

    def __str__(self) -> str:
        seeds = len(self.entrant.values)
        if self.won:
            return f"the best, decided after {seeds} seeds"
        if self.lost_to is not None:
            return f"not the best: worse than {self.lost_to}, decided after {self.against[self.lost_to].seeds} seeds"
        if not self.against:
            return "the reference" if self.entrant.reference else "nothing to compare"
        return "; ".join(decision.against(name) for name, decision in self.against.items())


def judge(race: Race, entrants: Sequence[Entrant]) -> list[Standing]:
    """Decide what can be decided, with Holm's procedure over all comparisons.

    Args:
        race: what is to be decided
        entrants: all of them, also those that have no seed yet or have failed
    """
    places = range(len(entrants))
    pairs = [(i, j) for i, j in combinations(places, 2) if race.for_best or entrants[j].reference] + [
        (j, i) for i, j in combinations(places, 2) if not race.for_best and not entrants[j].reference
        and entrants[i].reference
    ]  # fmt: skip
    sign = 1.0 if race.higher else -1.0
    differences = [
        [sign * (a - b) for a, b in zip(entrants[i].values, entrants[j].values, strict=False)] for i, j in pairs
    ]
    decisions = dict(zip(pairs, decide(differences, race.alpha), strict=True))
    return _best(race, entrants, decisions) if race.for_best else _compared(race, entrants, decisions)


Decisions = dict[tuple[int, int], Decision]


def _compared(race: Race, entrants: Sequence[Entrant], decisions: Decisions) -> list[Standing]:
    """With each reference."""
    standings = [Standing(entrant) for entrant in entrants]
    for (i, j), decision in decisions.items():
        standings[i].against[entrants[j].name] = decision
        if _open(race, entrants[i], entrants[j], decision):
            standings[i] = replace(standings[i], waits_for=(*standings[i].waits_for, j))
            standings[j] = replace(standings[j], waits_for=(*standings[j].waits_for, i))
    return standings


def _best(race: Race, entrants: Sequence[Entrant], decisions: Decisions) -> list[Standing]:
    """Every two: who is shown to be worse than anybody is out."""
    ways = decisions | {(j, i): _turned(decision) for (i, j), decision in decisions.items()}
    lost: dict[int, int] = {}
    for (i, j), decision in ways.items():
        if decision.verdict == "worse" and (i not in lost or (decision.p or 0.0) < (ways[i, lost[i]].p or 0.0)):
            lost[i] = j
    left = [i for i in _by_mean(race, entrants) if i not in lost]
    standings = []
    for i, entrant in enumerate(entrants):
        rivals = [lost[i]] if i in lost else [j for j in left if j != i]
        against = {entrants[j].name: ways[i, j] for j in rivals[:1]}
        waits = () if i in lost else tuple(j for j in rivals if _open(race, entrant, entrants[j], ways[i, j]))
        by = entrants[lost[i]].name if i in lost else None
        standings.append(Standing(entrant, against, waits, won=left == [i] and bool(lost), lost_to=by))
    return standings


def _by_mean(race: Race, entrants: Sequence[Entrant]) -> list[int]:
    """Places, the best mean first; those without any value last."""
    sign = -1.0 if race.higher else 1.0
    means = [(not e.values, sign * statistics.fmean(e.values) if e.values else 0.0) for e in entrants]
    return sorted(range(len(entrants)), key=means.__getitem__)


def _open(race: Race, one: Entrant, other: Entrant, decision: Decision) -> bool:
    """Whether further seeds may still decide between two."""
    fewer = min(len(one.values), len(other.values))
    return decision.verdict == "undecided" and fewer < race.seeds and not (one.failed or other.failed)


def _turned(decision: Decision) -> Decision:
    turned = {"better": "worse", "worse": "better", "undecided": "undecided"}
    return replace(decision, verdict=turned[decision.verdict])


def between(one: Standing, other: Standing) -> Decision | None:
    """What is known of one compared with another, whichever was the reference; None if they were not compared."""
    found = other.against.get(one.entrant.name)
    return one.against.get(other.entrant.name) or (None if found is None else _turned(found))


def ranked(race: Race, standings: Sequence[Standing]) -> list[Standing]:
    """The best mean first; those without any value last."""
    return [standings[place] for place in _by_mean(race, [s.entrant for s in standings])]


def conclusion(race: Race, standings: Sequence[Standing]) -> str:
    """What the race has found so far, in one sentence that claims no more than is decided."""
    if race.for_best:
        return _best_of(race, standings)
    parts = []
    for name in [s.entrant.name for s in standings if s.entrant.reference]:
        found = {s.entrant.name: s.against[name] for s in ranked(race, standings) if name in s.against}
        words = [
            f"{verdict} {', '.join(who)}"
            for verdict in ("better", "worse", "undecided")
            if (who := [other for other, decision in found.items() if decision.verdict == verdict])
        ]
        parts.append(f"Against {name}: {'; '.join(words)}.")
    return f"{' '.join(parts)} ({_share(race)[0].upper()}{_share(race)[1:]}.)"


def _best_of(race: Race, standings: Sequence[Standing]) -> str:
    winner = next((s for s in standings if s.won), None)
    if winner is not None:
        return f"{winner.entrant.name} is {winner} ({_share(race)})."
    names = [s.entrant.name for s in ranked(race, standings) if s.lost_to is None]
    return f"No best yet: undecided between {', '.join(names)} ({_share(race)})."


def _share(race: Race) -> str:
    return f"chance of any false claim at most {100 * race.alpha:g} %"
