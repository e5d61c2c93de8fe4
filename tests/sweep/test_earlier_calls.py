"""Trials that an earlier version began, under options that it did not know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution

from recyclelora.sweep.earlier_calls import fit_grid, go_on_as_then
from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.record import brought_back, read_study, record
from recyclelora.sweep.space import Space
from recyclelora.system.errors import UserError

SINCE = {"config.optimizer.reach_ends": False}
THEN = "optimizer.reach_ends=false"


def trains_as(overrides: Sequence[str]) -> str:
    """Today's default of the younger option is another one; at what was done before, it is not part of an identity."""
    given = {"optimizer.reach_ends": "true"} | dict(text.split("=") for text in overrides)
    return repr(sorted(item for item in given.items() if item != ("optimizer.reach_ends", "false")))


def plan(*values: int) -> Plan:
    distributions = {"x": CategoricalDistribution(list(values))}
    space = Space(distributions, ["x", "optimizer.reach_ends"], {"optimizer.reach_ends": THEN})
    return Plan(
        space, len(values), [{"x": x} for x in values], None, identity=trains_as,
        brought_back=brought_back(space.fixed, SINCE),
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One trial that has ended, one that has not, as 0.1.0 wrote them."""
    made = Ledger(tmp_path)
    for number, x in enumerate((1, 3)):
        made.add(number, {"x": x}, [f"x={x}"], [[f"x={x}"]], {}, plan=number)
    made.trials()[0].end("complete", values=[1.0])
    return made


def test_a_grid_that_takes_more_values_keeps_what_it_has(ledger: Ledger):
    assert fit_grid(ledger, plan(1, 2, 3)) == []
    assert [(t.params, t.plan) for t in ledger.trials()] == [({"x": 1}, 0), ({"x": 3}, 2)]


def test_what_had_not_ended_goes_on_as_it_was_begun_and_says_so(ledger: Ledger):
    (said,) = go_on_as_then(ledger, plan(1, 3))
    assert said == f"trial_0001: begun by an earlier version, and trained as then: {THEN}"
    assert [t.units for t in ledger.trials()] == [[["x=1"]], [["x=3", THEN]]]
    assert go_on_as_then(ledger, plan(1, 3)) == []


def test_only_what_was_done_before_is_brought_back():
    since = {"config.a": False, "config.b.c": 0, "config.d": None, "config.e": [1], "config.f": "x"}
    same = {"a": "a=False", "b.c": "b.c=0.0", "d": "d=null", "e": "e=[1]", "+f": "+f=x", "g": "g=1"}
    assert brought_back(same, since) == ["a=False", "b.c=0.0", "d=null", "e=[1]", "+f=x"]
    assert brought_back({"a": "a=true", "b.c": "b.c=3", "f": "f=y"}, since) == []


def test_what_is_refused_changes_nothing(tmp_path: Path):
    about = {"directions": ["maximize"], "objectives": ["v"], "n_trials": 1, "command": "", "config": {"a": 1}}
    record(tmp_path, dict(about), {})
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(UserError, match="a: was 1, now 2"):
        record(tmp_path, about | {"config": {"a": 2}, "n_trials": 7}, {})
    assert (tmp_path / "study.json").read_bytes() == before and (read_study(tmp_path) or {})["config"] == {"a": 1}
    assert json.loads(before)["n_trials"] == 1
