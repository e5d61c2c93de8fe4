"""Which images a split of a user's own data has: those that a list names, or a share of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recyclelora.system.errors import UserError

NAMED = 3
"""As many names are shown."""


@dataclass(frozen=True)
class Division:
    """Splits that divide the same images among them."""

    shares: Mapping[str, float]
    """split -> share, in their order; what is left over belongs to none"""
    seed: int
    group: str | None = None
    """regular expression over a name, whose groups say what must stay together"""

    def of(self, names: Sequence[str]) -> dict[str, frozenset[str]]:
        """Split -> names.

        Single names are put in the order of a hash and cut there, so that a few more images move few others. Groups are
        dealt out, the largest first, each to the split that is furthest from its share.

        Raises:
            UserError: a name that the group's expression does not match, or a split that gets nothing.
        """
        units: dict[str, list[str]] = {}
        for name in names:
            units.setdefault(self._unit(name), []).append(name)
        ordered = sorted(units, key=lambda unit: hashlib.sha256(f"{self.seed} {unit}".encode()).digest())
        found = self._cut(ordered) if self.group is None else self._dealt(units, ordered)
        if empty := [split for split, chosen in found.items() if not chosen]:
            what = f"{len(units)} {'images' if self.group is None else 'groups'}"
            raise UserError(f"data.folder.splits.{empty[0]}.share: nothing of {what} is left for it")
        return {split: frozenset(name for unit in chosen for name in units[unit]) for split, chosen in found.items()}

    def _unit(self, name: str) -> str:
        if self.group is None:
            return name
        match = re.search(self.group, name)
        if match is None:
            raise UserError(f"data.folder.group: {self.group} does not match {name}: every image needs its group")
        return "/".join(part or "" for part in match.groups())

    def _cut(self, ordered: Sequence[str]) -> dict[str, Sequence[str]]:
        found, upto, begin = {}, 0.0, 0
        for split, share in self.shares.items():
            upto += share
            end = int(upto * len(ordered) + 0.5)
            found[split], begin = ordered[begin:end], end
        return found

    def _dealt(self, units: Mapping[str, Sequence[str]], ordered: Sequence[str]) -> dict[str, Sequence[str]]:
        total = sum(map(len, units.values()))
        left = {split: share * total for split, share in self.shares.items()}
        nobody = max(0.0, total - sum(left.values()))
        found: dict[str, list[str]] = {split: [] for split in self.shares}
        for unit in sorted(ordered, key=lambda unit: -len(units[unit])):  # stable: of one size, as ordered
            split = max(left, key=lambda split: left[split])
            if nobody > left[split]:
                nobody -= len(units[unit])
            else:
                found[split].append(unit)
                left[split] -= len(units[unit])
        return dict(found)


def listed(path: Path, names: Iterable[str]) -> frozenset[str]:
    """The names that a text file has, one a line; blank lines and those that begin with ``#`` are skipped.

    A line is a path, or its end, with or without the suffix. Where images stand beside their masks, as in SegNet's
    lists, the first word counts.

    Args:
        path: the list
        names: paths of all images, relative to one folder

    Raises:
        UserError: it cannot be read, names what is not there, or does not say which of several is meant.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path.absolute()}: the list of images cannot be read: {error}") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    ends = _ends(names)
    hits = {line: next((ends[end] for end in _meant(line) if end in ends), []) for line in lines}
    if missing := [line for line in hits if not hits[line]]:
        shown = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        raise UserError(f"{path.absolute()}: {len(missing)} of {len(hits)} lines name no image: {shown}")
    for line, found in hits.items():
        if len(found) > 1:
            raise UserError(
                f"{path.absolute()}: {line!r} is {' as well as '.join(found[:NAMED])}: write more of its path"
            )
    if not hits:
        raise UserError(f"{path.absolute()}: names no image")
    return frozenset(name for found in hits.values() for name in found)


def _ends(names: Iterable[str]) -> dict[str, list[str]]:
    """Every end of a path, with and without its suffix -> the paths that end so."""
    found: dict[str, list[str]] = {}
    for name in names:
        parts = PurePosixPath(name).parts
        for first in range(len(parts)):
            end = "/".join(parts[first:])
            for text in {end, str(PurePosixPath(end).with_suffix(""))}:
                found.setdefault(text, []).append(name)
    return found


def _meant(line: str) -> Iterator[str]:
    """What a line may stand for, the most exact first."""
    for text in dict.fromkeys((line, line.split()[0])):
        parts = PurePosixPath(text.replace("\\", "/")).parts
        yield from ("/".join(parts[first:]) for first in range(len(parts)))
