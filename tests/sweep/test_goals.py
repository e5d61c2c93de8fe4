"""What a trial's value is: a figure of its result, or how near that is to a number."""

from __future__ import annotations

import math

import pytest

from recyclelora.sweep.goals import Objective
from recyclelora.system.errors import UserError

RESULT = {"movement": 0.04, "miou": {"source_val": 0.5}, "nothing": None}


def test_a_figure_is_itself():
    assert Objective.parse("miou.source_val").of(RESULT) == 0.5


@pytest.mark.parametrize("near", ["0.02", "8e-2"])
def test_twice_and_half_as_much_are_equally_far(near):
    assert Objective.parse(f"movement~{near}").of(RESULT) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "text", ["movement~", "movement~0", "movement~-1", "movement~inf", "movement~nan", "movement~a"]
)
def test_what_nothing_can_be_near_is_refused(text):
    with pytest.raises(UserError, match=r"hydra.sweeper.objectives: 'movement~.*' needs a number above zero behind ~"):
        Objective.parse(text)


@pytest.mark.parametrize(("text", "message"), [
    ("nothing~1", "nothing is None, which is not near or far from 1"),
    ("missing~1", "result.json has no missing"),
])  # fmt: skip
def test_a_figure_without_a_ratio_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        Objective.parse(text).of(RESULT)
