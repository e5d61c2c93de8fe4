"""What earlier runs left for later ones: decomposed weights, rendered streets, decoded images, class counts.

Every folder in the cache is one kind. Whatever is removed is computed again when a run needs it; runs in progress are
not disturbed, since files are removed whole and those still being written are left alone. `all` are the kinds that
this project writes: a folder of another name is removed only by that name.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recyclelora.system.errors import UserError
from recyclelora.system.filecache import ABANDONED_AFTER, LEDGER, UNFINISHED

KINDS = ("factors", "streets", "decoded", "class_counts", "sound_files")
"""What this project writes into its cache."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True)
class Entry:
    """One cached file: its path, size in bytes and time of the last use or writing (seconds since the epoch)."""

    path: Path
    size: int
    used: float


def default_directory() -> Path:
    """The configuration's default for ``cache``: ``$RECYCLELORA_CACHE`` or ``~/.cache/recyclelora``."""
    return Path(os.environ.get("RECYCLELORA_CACHE") or Path.home() / ".cache" / "recyclelora")


def of_run(stored: str) -> Path:
    """The cache for what is done with a run: its own where that is one on this machine, else the default.

    Somebody else's run says nothing of where files are written here, and their home may be closed.
    """
    # os.path, for Path.is_dir raises where a folder above may not be entered
    own = any(os.path.isdir(os.path.join(stored, kind)) for kind in KINDS)  # noqa: PTH112, PTH118
    return Path(stored) if own else default_directory()


def inventory(directory: Path) -> dict[str, list[Entry]]:
    """Kind -> its entries, by name; files that are being written are not among them."""
    if not directory.is_dir():
        return {}
    kinds = sorted(path for path in directory.iterdir() if path.is_dir())
    return {kind.name: list(_entries(kind)) for kind in kinds}


def clear(directory: Path, kinds: Sequence[str]) -> int:
    """Remove every entry of the given kinds; the number of bytes that are gone.

    Raises:
        UserError: for a kind that is not there, or a folder that cannot be a cache.
    """
    chosen = _chosen(directory, kinds)
    return _remove(entry for entries in chosen.values() for entry in entries)


def prune(directory: Path, max_bytes: int, kinds: Sequence[str] = ("all",)) -> int:
    """Remove the least recently used entries of the given kinds until ``max_bytes`` of them are left; bytes gone.

    Raises:
        UserError: as `clear`.
    """
    chosen = _chosen(directory, kinds)
    entries = sorted((entry for found in chosen.values() for entry in found), key=lambda entry: entry.used)
    surplus, doomed = sum(entry.size for entry in entries) - max_bytes, []
    for entry in entries:
        if surplus <= 0:
            break
        doomed.append(entry)
        surplus -= entry.size
    return _remove(doomed)


def _entries(kind: Path) -> Iterable[Entry]:
    """The finished files below one kind's folder, and what dead processes left unfinished."""
    for path in kind.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # another process removed it
        unfinished = path.name.startswith(".") or path.suffix in UNFINISHED
        if path.is_dir() or path == kind / LEDGER or (unfinished and status.st_mtime > time.time() - ABANDONED_AFTER):
            continue
        yield Entry(path, status.st_size, status.st_mtime)


def _chosen(directory: Path, kinds: Sequence[str]) -> dict[str, list[Entry]]:
    """The inventory of some kinds; nothing is removed from a folder that holds more than a cache."""
    real = directory.resolve()
    for inside in (Path.home().resolve(), Path.cwd().resolve()):
        if inside.is_relative_to(real):
            raise UserError(f"{directory} is no cache: {inside} lies in it; set RECYCLELORA_CACHE or --dir")
    found = inventory(directory)
    if "all" in kinds:
        return {kind: entries for kind, entries in found.items() if kind in KINDS}
    for kind in kinds:
        if kind not in found:
            raise UserError(f"{directory} holds no {kind!r}; there is {', '.join([*found, 'all'])}")
    return {kind: found[kind] for kind in kinds}


def _remove(entries: Iterable[Entry]) -> int:
    """Unlink files one by one, so that others see each whole or not at all; folders stay for those who write now."""
    removed = 0
    for entry in entries:
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{entry.path}: cannot be removed: {error.strerror}") from error
        removed += entry.size
    return removed


def size(text: str) -> int:
    """Bytes from ``2GiB``, ``500 MB``, ``1e9``...

    Raises:
        UserError: for anything else, or a negative number.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d+)?)\s*([KMGT]I?|)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise UserError(f"{text!r} is no size; write 500MB, 2GiB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def readable(number: int) -> str:
    """Bytes for people: ``217.3 MiB``."""
    value, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def table(directory: Path, found: dict[str, list[Entry]]) -> str:
    """The inventory in aligned lines."""
    rows = [(kind, len(entries), sum(entry.size for entry in entries)) for kind, entries in found.items()]
    if not rows:
        return f"{directory}: nothing cached"
    rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    width = max(len(row[0]) for row in rows)
    lines = [f"{kind:{width}}  {entries:8,} files  {readable(total):>10}" for kind, entries, total in rows]
    return "\n".join([str(directory), *lines])
