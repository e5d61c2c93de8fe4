"""What is remembered of files that were found sound."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from recyclelora.data.datasets.base import FolderDataset, Item
from recyclelora.data.headers import read_header
from recyclelora.data.masks import read_ids16
from recyclelora.data.soundness import _looks_sound, sound_files


@pytest.fixture
def dataset(tmp_path: Path) -> FolderDataset:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        path.write_bytes(b"pixels")
    items = (Item(paths[0], paths[1]), Item(paths[2], paths[3]))
    return FolderDataset("own", tmp_path, items, np.arange(256, dtype=np.uint8))


def test_files_that_are_read_otherwise_are_looked_at_again(dataset: FolderDataset, tmp_path: Path):
    marks = sound_files(str(tmp_path / "cache"))
    marks.remember([dataset])
    assert marks.know([dataset]) and marks.know([dataclasses.replace(dataset, title="test")])
    table = dataset.table[::-1].copy()
    turned = (dataclasses.replace(dataset.items[0], turn=6), *dataset.items[1:])
    for change in ({"table": table}, {"read_ids": read_ids16}, {"items": turned}):
        assert not marks.know([dataclasses.replace(dataset, **change)])


def test_a_cache_that_cannot_be_written_refuses_no_sound_files(dataset: FolderDataset, tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    marks = sound_files(str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="marks of sound files .*not written"):
        marks.remember([dataset])
    assert not marks.know([dataset])


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "0.png")
    assert read_header(tmp_path / "0.png") is None
    assert not _looks_sound(Item(tmp_path / "0.png", None))
