"""Which blocks a text such as ``8:`` or ``0,3,5`` names. Without torch: options are checked by the same rule."""

from __future__ import annotations

import re
from collections.abc import Iterator

from recyclelora.system.checks import Problem

PART = re.compile(r"\s*(-?\d+|(-?\d+)?:(-?\d+)?(:-?\d+)?)\s*")


def block_ranges(text: str) -> list[int | slice]:
    """Numbers and slices in Python's syntax, divided by commas.

    Raises:
        ValueError: some part is neither, or a slice has a step of zero.
    """
    found: list[int | slice] = []
    for part in text.split(","):
        if not PART.fullmatch(part):
            raise ValueError(f"blocks: {part!r} in {text!r} is neither a number nor a slice such as '8:' or '0,3,5'")
        bounds = [int(bound) if bound.strip() else None for bound in part.split(":")]
        if len(bounds) == 3 and bounds[2] == 0:
            raise ValueError(f"blocks: {part!r} in {text!r} has a step of zero")
        found.append(slice(*bounds) if len(bounds) > 1 else int(part))
    return found


def parse_blocks(text: str, count: int) -> list[int]:
    """Block numbers named by ``text`` (see `block_ranges`) among ``count`` blocks, ascending.

    Raises:
        ValueError: a number beyond the blocks, or a part that names none.
    """
    numbers: set[int] = set()
    for part, chosen in zip(text.split(","), block_ranges(text), strict=True):
        if isinstance(chosen, int) and not -count <= chosen < count:
            raise ValueError(f"blocks: there is no block {chosen} in {text!r}; the model has blocks 0 to {count - 1}")
        found = [range(count)[chosen]] if isinstance(chosen, int) else list(range(count)[chosen])
        if not found:
            raise ValueError(f"blocks: {part!r} is empty; the model has blocks 0 to {count - 1}")
        numbers.update(found)
    return sorted(numbers)


def check_selection(targets: list[str], blocks: str) -> Iterator[Problem]:
    """Refuse a choice of layers that could fit no model."""
    if not targets:
        yield "targets", "must hold at least one pattern over module names, such as '*.attn.qkv'"
    try:
        block_ranges(blocks)
    except ValueError as error:
        what = str(error).removeprefix("blocks: ")
        yield "blocks", f"must be a range such as ':', '8:' or '-4:', or a list such as '0,3,5'; {what}"
