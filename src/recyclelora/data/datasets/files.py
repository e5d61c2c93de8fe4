"""Finding the files of a dataset, and saying in one line what is not where it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recyclelora.data.datasets.base import Item, Request
from recyclelora.data.patterns import printable
from recyclelora.system.errors import UserError

NAMED = 3
"""As many unpaired files are named; all are counted."""

HELD_OUT = 500
"""Images that the splits ``train`` and ``val`` of a dataset without official ones set apart for validation."""


class UnpairedFiles(UserError):
    """Images without their masks."""

    def __init__(self, folder: Path, items: list[Item], unpaired: list[Item]) -> None:
        self.items = items
        """every image with the mask that it should have"""
        self.unpaired = unpaired
        """those whose mask is not there"""
        shown = "; ".join(
            f"{item.image.relative_to(folder)}, expected {item.label.relative_to(folder)}"
            for item in unpaired[:NAMED]
            if item.label is not None
        )
        more = f"; and {len(unpaired) - NAMED} more" if len(unpaired) > NAMED else ""
        super().__init__(f"{folder.absolute()}: {len(unpaired)} of {len(items)} images have no label: {shown}{more}")


@dataclass(frozen=True)
class Problem:
    """A file for which a dataset would be refused as a whole."""

    kind: str
    file: Path
    detail: str


_tolerated: ContextVar[list[Problem] | None] = ContextVar("_tolerated", default=None)


@contextmanager
def tolerating() -> Iterator[list[Problem]]:
    """Datasets opened inside are not refused for single files; what is wrong is put into the list that is yielded."""
    found: list[Problem] = []
    token = _tolerated.set(found)
    try:
        yield found
    finally:
        _tolerated.reset(token)


def refuse(error: UserError, problems: list[Problem]) -> None:
    """Raise the error, unless :func:`tolerating` collects its problems."""
    tolerated = _tolerated.get()
    if tolerated is None:
        raise error
    tolerated += problems


def with_masks(folder: Path, items: list[Item], unpaired: list[Item]) -> tuple[Item, ...]:
    """The items that have their masks; refuses the others unless they are tolerated, and left out."""
    if unpaired:
        problems = [
            Problem("no mask", item.image, f"expected {printable(item.label)}") for item in unpaired if item.label
        ]
        refuse(UnpairedFiles(folder, items, unpaired), problems)
    missing = {item.image for item in unpaired}
    return tuple(item for item in items if item.image not in missing)


def check_choice(what: str, given: str | None, allowed: Iterable[str]) -> None:
    """Refuse a split or variant that a dataset does not have; ``what`` is such as "gta has no split"."""
    if given not in (names := list(allowed)):
        raise UserError(f"{what} {given!r}; it has: {', '.join(names)}")


def dataset_folder(
    request: Request, name: str, splits: Iterable[str], layout: str, variants: Iterable[str] = ()
) -> Path:
    """The folder of a dataset, of which a split and perhaps a variant are asked for that it has.

    Raises:
        UserError: it has no such split or variant, or is not there; says which ``layout`` is expected in it.
    """
    check_choice(f"{name} has no split", request.split, splits)
    if request.variant is not None:
        if not (known := list(variants)):
            raise UserError(f"{name} has no variants, but variant={request.variant!r} is asked for")
        check_choice(f"{name} has no variant", request.variant, known)
    return existing(request.root / name, name, layout)


def existing(folder: Path, dataset: str, layout: str) -> Path:
    """The folder itself, or a UserError with the layout that is expected in it."""
    if not folder.is_dir():
        raise not_there(folder, dataset, layout)
    return folder


def not_there(folder: Path, dataset: str, layout: str) -> UserError:
    """The refusal of a dataset that is not where it should be."""
    return UserError(f"{dataset} is not at {folder.absolute()}: expected {layout} in it, as downloaded")


def found(folder: Path, *patterns: str) -> list[Path]:
    """All files that match one of the patterns, sorted; refuses an empty set.

    Hidden files are left out: macOS writes ``._name.png`` beside every ``name.png`` that it unpacks.
    """
    images = sorted({image for pattern in patterns for image in folder.glob(pattern) if not image.name.startswith(".")})
    if not images:
        raise UserError(f"{folder.absolute()}: no image matches {' or '.join(patterns)}")
    return images


def paired(folder: Path, images: list[Path], label_of: Callable[[Path], Path]) -> tuple[Item, ...]:
    """Images with their labels; refuses images without one, counted and named."""
    items = [Item(image, label_of(image)) for image in images]
    unpaired = [item for item in items if item.label is not None and not item.label.is_file()]
    return with_masks(folder, items, unpaired)


def unlabelled(images: list[Path]) -> tuple[Item, ...]:
    """Images of a split whose labels are not public."""
    return tuple(Item(image, None) for image in images)


def held_out(items: tuple[Item, ...], split: str, seed: int) -> tuple[Item, ...]:
    """``all``; or ``val``, a seeded draw of 500 images (a tenth of a smaller set); or ``train``, the others."""
    if split == "all":
        return items
    num_val = max(1, min(HELD_OUT, len(items) // 10))
    chosen = set(np.random.default_rng((seed, len(items))).permutation(len(items))[:num_val].tolist())
    return tuple(item for index, item in enumerate(items) if (index in chosen) == (split == "val"))
