"""What became of every file below the folder of a user's own data: used, or not and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from recyclelora.data.datasets.own import OwnFiles, OwnSplit, files_below
from recyclelora.data.patterns import is_hidden, printable
from recyclelora.data.recognition.coding import LEGENDS
from recyclelora.system.errors import UserError

UNMASKED = "images without a mask"

NAMED = 2
"""As many files of each kind are named in a line."""


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


def account(root: Path, splits: Collection[OwnSplit], asked: Collection[str]) -> Account:
    """Look at every file below ``root``.

    Args:
        root: the folder
        splits: all of it
        asked: names of the splits that a run reads

    Raises:
        UserError: a pattern of a split that is asked for and does not tell files apart.
    """
    result = Account(root)
    result.used |= {root / split.list for split in splits if split.list is not None and split.name in asked}
    result.used |= {root / name for name in LEGENDS if (root / name).is_file()}
    reasons: dict[Path, str] = {}
    for split in splits:
        try:
            its = _split(split.find())
        except UserError:
            if split.name in asked:
                raise
            continue  # nobody reads that split
        if split.name not in asked:
            reasons |= dict.fromkeys(its.used, f"of a split that is not asked for, {split.name}") | its.reasons
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


def _split(files: OwnFiles) -> _Split:
    """Which files of one split belong together."""
    images, masks = files.images, files.masks
    if masks is None:
        return _Split(set(images.values()), dict(files.left))
    both = images.keys() & masks.keys()
    reasons = {path: "masks without an image" for key, path in masks.items() if key not in both}
    reasons |= {path: UNMASKED for key, path in images.items() if key not in both}
    reasons |= {masks[key]: why for key, why in files.left_keys.items() if key in masks} | files.left
    return _Split({files[key] for files in (images, masks) for key in both}, reasons)
