"""Only its own failures use up a trial's tries."""

from __future__ import annotations

import pytest

from recyclelora.sweep.attempts import MOST_ATTEMPTS, Attempt, tries_again


def attempts(*ends: dict) -> list[Attempt]:
    return [Attempt(0, number, "job", "", **{"node_fault": True, **end}) for number, end in enumerate(ends, 1)]


KILLED, OWN, STOPPED, NEVER_BEGAN = {}, {"node_fault": False}, {"excused": True}, {"began": False}


@pytest.mark.parametrize(
    ("ends", "again"),
    [
        ([OWN], False),
        ([KILLED], True),
        ([KILLED] * 2, True),
        ([KILLED] * 3, False),
        ([{"reached": 5}] * 3, False),
        ([{"reached": 5}, {"reached": 5}, {"reached": 6}], True),
        ([{"reached": step} for step in range(0, 90, 10)], True),  # killed nine times, each time further on
        ([STOPPED] * 30, True),  # reboots, preemptions, stops of the driver
        ([STOPPED, STOPPED, STOPPED, KILLED], True),
        ([NEVER_BEGAN] * 2, True),
        ([NEVER_BEGAN] * 3, False),
        ([NEVER_BEGAN, NEVER_BEGAN, KILLED, NEVER_BEGAN, NEVER_BEGAN], True),
        ([KILLED, KILLED, NEVER_BEGAN, KILLED], False),
        ([KILLED, OWN], False),
        ([STOPPED] * MOST_ATTEMPTS, False),
    ],
)
def test_who_is_tried_again(ends: list[dict], again: bool):
    assert tries_again(attempts(*ends), max_retries=2) is again
