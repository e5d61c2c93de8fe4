"""What became of every file below the folder of a user's own data: used, or not and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recyclelora.data.datasets.own import Key, files_below, matches
from recyclelora.data.patterns import is_hidden, printable
from recyclelora.system.errors import UserError

UNMASKED = "images without a mask"

NAMED = 2
"""As many files of each kind are named in a line."""

Patterns = tuple[str, str | None]
"""Of a split's images and, where it has some, its masks."""


@dataclass
class Account:
    """Files that are used, and those that are not by the reason."""

    root: Path
    used: set[Path] = field(default_factory=set)
    unused: dict[str, list[Path]] = field(default_factory=dict)

    def leave(self, reason: str, path: Path) -> None:
        """Note a file that is not used."""
        self.unused.setdefault(reason, []).append(path)

    def line(self) -> str | None:
        """What is not used, in one line; None where everything is."""
        if not self.unused:
            return None
        parts = []
        for reason, paths in self.unused.items():
            shown = ", ".join(printable(path.relative_to(self.root)) for path in paths[:NAMED])
            parts.append(f"{len(paths)} {reason} ({shown}{', ...' if len(paths) > NAMED else ''})")
        return f"{printable(self.root)}: {len(self.used)} files are used, others are not: {'; '.join(parts)}"


def account(root: Path, splits: Mapping[str, Patterns], asked: Collection[str]) -> Account:
    """Look at every file below ``root``.

    Args:
        root: the folder
        splits: the patterns of every split by its name
        asked: the splits that a run reads

    Raises:
        UserError: a pattern of a split that is asked for and does not tell files apart.
    """
    result = Account(root)
    reasons: dict[Path, str] = {}
    for name, (images, masks) in splits.items():
        try:
            its = _split(matches(root, images), matches(root, masks) if masks else None)
        except UserError:
            if name in asked:
                raise
            continue  # nobody reads that split
        if name not in asked:
            reasons |= dict.fromkeys(its.used, f"of a split that is not asked for, {name}") | its.reasons
        else:
            result.used |= its.used
            reasons |= its.reasons
    loops: list[Path] = []
    for path in files_below(root, loops):
        if path not in result.used:
            hidden = "hidden" if is_hidden(path.relative_to(root).as_posix()) else "matched by no pattern"
            result.leave(reasons.get(path, hidden), path)
    for path in loops:
        result.leave("links to a folder that they lie in", path)
    return result


@dataclass(frozen=True)
class _Split:
    used: set[Path]
    reasons: dict[Path, str]


def _split(images: Mapping[Key, Path], masks: Mapping[Key, Path] | None) -> _Split:
    """Which files of one split belong together."""
    if masks is None:
        return _Split(set(images.values()), {})
    both = images.keys() & masks.keys()
    reasons = {path: "masks without an image" for key, path in masks.items() if key not in both}
    reasons |= {path: UNMASKED for key, path in images.items() if key not in both}
    return _Split({files[key] for files in (images, masks) for key in both}, reasons)
