"""The tries of a unit, and whether there is another one: only its own failures use them up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

MOST_ATTEMPTS = 100
"""However each of them ended."""
MOST_FALSE_STARTS = 3
"""In a row: jobs that died before their unit began."""


@dataclass
class Attempt:
    """One try of one unit; also how ``state.json`` keeps it."""

    unit: int
    attempt: int
    job: str
    """the executor's name for the job that runs it; empty until it is submitted"""
    submitted: str
    ended: str | None = None
    reason: str | None = None
    node_fault: bool = False
    excused: bool = False
    """its end says nothing about the trial, and is not counted as a try"""
    began: bool = True
    """whether its job got as far as the unit"""
    reached: int | None = None
    """the last step that the unit had told of when it ended"""
    seconds: float = 0.0
    """for which it ran"""
    gpus: float = 1.0
    """that it had, or its share of one"""


def now() -> str:
    """The time, as the ledger writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def tries_again(attempts: Sequence[Attempt], max_retries: int) -> bool:
    """Whether the unit gets another attempt.

    Args:
        attempts: all of the unit's, at least one, the last of which has just ended without a final outcome
        max_retries: how often an attempt may be lost at the same point
    """
    last = attempts[-1]
    if len(attempts) >= MOST_ATTEMPTS:
        return False
    if not last.began:
        return false_starts(attempts) < MOST_FALSE_STARTS
    return last.excused or (last.node_fault and lost(attempts) <= max_retries)


def false_starts(attempts: Sequence[Attempt]) -> int:
    """How many of the last attempts ended before the unit began."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.began:
            break
        count += 1
    return count


def lost(attempts: Sequence[Attempt]) -> int:
    """How many attempts were killed, or lost with their node, since one last got further than all before it."""
    count, furthest = 0, -1
    for attempt in attempts:
        if attempt.reached is not None and attempt.reached > furthest:
            count, furthest = 0, attempt.reached
        count += attempt.node_fault and attempt.began and not attempt.excused
    return count
