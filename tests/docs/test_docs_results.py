"""Scores printed in README and docs/results.md are those of the committed tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

import numpy as np
import pytest

from recyclelora.config.compose import home

SCORE = re.compile(r"(\d+\.\d) ± (\d+\.\d)")
RACED = re.compile(r"([+-]\d+\.\d) \[(-?\d+\.\d), (-?\d+\.\d)\]")
RESULTS = home() / "docs/results"


def rows(text: str) -> Iterator[str]:
    """Those of tables that hold scores."""
    return (line for line in text.splitlines() if line.startswith("|") and SCORE.search(line))


def scores(study: str) -> list[set[tuple[str, str]]]:
    """Of each group, mean and standard deviation of every score in %, as printed."""
    with (RESULTS / study / "table.csv").open() as file:
        return [
            {
                (f"{100 * float(row[key]):.1f}", f"{100 * float(row[key.removesuffix('_mean') + '_sd']):.1f}")
                for key in row
                if key.endswith("_mean") and row[key]
            }
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(
    ("page", "title", "study", "count"),
    [
        ("README.md", "\n## ", "photographs", 7),
        ("docs/results.md", "\n## Photographs: from day", "photographs", 10),
        ("docs/results.md", "\n## Photographs: from India", "photographs_cross", 10),
        ("docs/results.md", "\n## Eighteen methods", "streets", 18),
    ],
)
def test_scores_are_those_of_the_committed_table(page: str, title: str, study: str, count: int):
    text = (home() / page).read_text()
    part = text.split(title)[0] if page == "README.md" else text.split(title)[1].split("\n## ")[0]
    printed, known = list(rows(part)), scores(study)
    assert len(printed) == count
    for row in printed:
        assert any(set(SCORE.findall(row)) <= group for group in known), row


@pytest.mark.parametrize(
    ("study", "parts"),
    [("photographs", {"README.md": 0, "docs/results.md": 1}), ("photographs_cross", {"docs/results.md": 2})],
)
def test_intervals_of_the_race_are_those_of_its_report(study: str, parts: dict[str, int]):
    report = (RESULTS / study / "table.md").read_text()
    pattern = r"([+-]\d+\.\d+) \(([+-]\d+\.\d+) to ([+-]\d+\.\d+)\)"
    known = np.array([list(map(float, numbers)) for numbers in re.findall(pattern, report)])
    for page, part in parts.items():
        found = RACED.findall((home() / page).read_text().split("\n## ")[part])
        assert len(found) >= 4
        for numbers in found:
            assert (np.abs(known - np.array(numbers, float)) < 0.0501).all(axis=1).any(), numbers
