"""Scores over the severity of common corruptions (Michaelis et al., 2019: robustness benchmarks of Cityscapes-C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from recyclelora.data.config import COMMON_CORRUPTIONS, CorruptionConfig, DataConfig
from recyclelora.system.errors import UserError

ALL = "all"


def chosen(corruptions: Sequence[str]) -> list[str]:
    """The corruptions that are asked for; ``all`` are fourteen."""
    return list(COMMON_CORRUPTIONS) if ALL in corruptions else list(dict.fromkeys(corruptions))


def corrupted(data: DataConfig, corruptions: Sequence[str], severities: Sequence[int]) -> DataConfig:
    """The targets as they are, and under every corruption at every severity.

    Raises:
        UserError: a target is corrupted already.
    """
    for target in data.targets:
        if target.corruption is not None:
            raise UserError(f"corruptions: the target {target.label} has a corruption of its own")
    made = [
        replace(target, name=label(target.label, name, severity), corruption=CorruptionConfig(name, severity))
        for target in data.targets for name in chosen(corruptions) for severity in sorted(set(severities))
    ]  # fmt: skip
    return replace(data, targets=[*data.targets, *made])


def label(target: str, corruption: str, severity: int) -> str:
    """Of a corrupted target in results."""
    return f"{target}_{corruption}_{severity}"


def summarised(
    targets: Sequence[str], scores: Mapping[str, float | None], corruptions: Sequence[str], severities: Sequence[int]
) -> dict[str, Any]:
    """Mean mIoU of the targets, between 0 and 1, by corruption and severity.

    Args:
        targets: that are not corrupted
        scores: mIoU of every set that :func:`corrupted` makes
        corruptions: that were asked for
        severities: 1 to 5

    Returns:
        ``clean``, ``curves`` (corruption -> severity -> mIoU), ``mpc``: the mean under corruption, ``rpc``: its share
        of the clean one.
    """
    steps = sorted(set(severities))
    curves = {
        name: {str(s): _mean([scores[label(target, name, s)] for target in targets]) for s in steps}
        for name in chosen(corruptions)
    }
    clean = _mean([scores[target] for target in targets])
    mpc = _mean([value for row in curves.values() for value in row.values()])
    return {"clean": clean, "mpc": mpc, "rpc": mpc / clean if clean and mpc is not None else None, "curves": curves}


def severity_table(found: Mapping[str, Any]) -> Table:
    """mIoU in percent: one row a corruption, one column a severity."""
    steps = list(next(iter(found["curves"].values())))
    shares = f"clean {_percent(found['clean'])}, under corruption {_percent(found['mpc'])}"
    if found["rpc"] is not None:
        shares += f" ({_percent(found['rpc'])} % of it)"
    table = Table(title="mIoU in %, mean of targets, by severity", caption=shares, title_justify="left")
    table.add_column("corruption")
    for step in steps:
        table.add_column(step, justify="right")
    for name, row in found["curves"].items():
        table.add_row(name, *(_percent(row[step]) for step in steps))
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _percent(value: float | None) -> str:
    return "not scored" if value is None else f"{100 * value:.1f}"
