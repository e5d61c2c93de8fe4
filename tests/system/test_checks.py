from __future__ import annotations

from dataclasses import dataclass

from recyclelora.system.checks import Problem, above_zero, added, at_least, checked, one_of, refusals


@dataclass
class Options:
    rank: int = checked(16, at_least, 1)
    scale: float | None = added(None, above_zero)
    kind: str = checked("plain", one_of, ("plain", "fancy"))

    def check(self) -> list[Problem]:
        return [("rank", "must be even")] if self.rank % 2 else []


@dataclass
class Derived(Options):
    rank: int = 8


def test_fields_are_checked_before_what_they_must_agree_on():
    assert refusals(Options()) == []
    assert refusals(Options(rank=-1, scale=0.0, kind="fancyy")) == [
        "rank=-1: must be a finite number of at least 1",
        "scale=0.0: must be a finite number above 0",
        "kind='fancyy': must be one of plain, fancy (did you mean fancy?)",
        "rank=-1: must be even",
    ]


def test_a_field_with_another_default_keeps_the_check_of_its_base():
    assert Derived().rank == 8
    assert refusals({"a": [Derived(rank=0)]}) == ["a.0.rank=0: must be a finite number of at least 1"]
