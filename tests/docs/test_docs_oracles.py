"""docs/oracles.md names each file of the core, and tests that are there."""

from __future__ import annotations

import ast
import re

from recyclelora.config.compose import home

LINES = [line for line in (home() / "docs/oracles.md").read_text().splitlines() if line.startswith("|")]
ROWS = [line.strip("| ").split(" | ") for line in LINES[2:]]
"""Of each unit: itself, what it is held against, tests."""


def core() -> set[str]:
    """The files whose mistakes are counted: the keys of ``CORE`` in benchmarks/mutants.py."""
    tree = ast.parse((home() / "benchmarks/mutants.py").read_text())
    (found,) = (
        node.value for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "CORE"
    )  # fmt: skip
    return set(ast.literal_eval(found))


def named(cell: str) -> set[str]:
    return set(re.findall(r"`([\w/]+(?:\.py|/))`", cell))


def test_every_file_of_the_core_has_its_line():
    units = set().union(*(named(unit) for unit, *_ in ROWS))
    assert core() - units == set()
    assert {unit for unit in units if not (home() / "src/recyclelora" / unit).exists()} == set()


def test_every_line_names_tests_that_are_there():
    for unit, against, tests in ROWS:
        assert against and named(tests), unit
        assert {test for test in named(tests) if not (home() / "tests" / test).is_file()} == set(), unit
