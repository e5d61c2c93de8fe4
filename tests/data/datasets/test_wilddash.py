"""WildDash 2 and RailSem19 as downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixture_data import make_railsem19, make_wilddash

from recyclelora.data.datasets import open_dataset
from recyclelora.data.labels import CITYSCAPES_CLASSES, IGNORE
from recyclelora.system.errors import UserError


@pytest.mark.parametrize(("name", "make"), [("wilddash", make_wilddash), ("railsem19", make_railsem19)])
def test_splits_are_held_out(name, make, tmp_path: Path):
    make(tmp_path)
    sizes = {split: len(open_dataset(name, split, root=tmp_path)) for split in ("train", "val", "all")}
    assert sizes == {"train": 11, "val": 1, "all": 12}
    with pytest.raises(UserError, match=f"{name} has no split 'test'; it has: train, val, all"):
        open_dataset(name, "test", root=tmp_path)
    with pytest.raises(UserError, match=rf"{name} is not at .*: expected .*the content of"):
        open_dataset(name, "all", root=tmp_path / "elsewhere")


def names_of(name: str, root: Path, stored: tuple[int, ...]) -> list[str]:
    """The classes that some stored ids are read to."""
    trains = open_dataset(name, "all", root=root).table[list(stored)].tolist()
    return ["" if train == IGNORE else CITYSCAPES_CLASSES[train] for train in trains]


def test_wilddash_has_more_ids_than_cityscapes(tmp_path: Path):
    make_wilddash(tmp_path)
    assert names_of("wilddash", tmp_path, (7, 26, 33, 34, 35, 36, 37, 38)) == [
        "road", "car", "bicycle", "truck", "car", "", "", "road"]  # fmt: skip


def test_railsem19_has_ids_of_its_own(tmp_path: Path):
    make_railsem19(tmp_path)
    assert names_of("railsem19", tmp_path, (2, 3, 11, 12, 13, 15, 16, 17, 18)) == [
        "building", "road", "person", "", "car", "", "train", "", "road"]  # fmt: skip
    assert len(open_dataset("railsem19", "all", root=tmp_path).classes) == 14
