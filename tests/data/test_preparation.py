from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import save_rgb
from fixture_data import make_own

from recyclelora.data import preparation
from recyclelora.data.datasets import OwnSplit, open_dataset, own_folder, seeded_subset
from recyclelora.data.labels import IGNORE, explicit_table
from recyclelora.data.masks import read_ids16
from recyclelora.data.preparation import check_labels, render_scenes, scenes_to_render
from recyclelora.system.errors import UserError


def test_only_missing_scenes_of_the_wanted_subset_are_rendered(tmp_path: Path):
    def opened(split):
        return open_dataset("streets", split, root=tmp_path, cache_dir=tmp_path / "cache")

    night = seeded_subset(opened("night"), 3, seed=0)
    assert len(scenes_to_render([opened("source_train"), night, night])) == 403
    jobs = scenes_to_render([night])
    done: list[int] = []
    render_scenes(jobs, done.append)
    assert sum(done) == 3
    assert scenes_to_render([night]) == []
    assert len(list((tmp_path / "cache").rglob("*.png"))) == 3


CLASSES = ["background", "thing"]


def masks(root: Path, *values: int, count: int = 3):
    """A user's training images whose masks hold only these ids."""
    make_own(root, values, lambda path, ids: save_rgb(path, ids.astype(np.uint8)), splits=["train"], count=count)
    table = explicit_table({}, len(CLASSES), {IGNORE}, ignore_others=False)
    return own_folder("folder", OwnSplit("train", root, "images/train/*.jpg", "masks/train/*.png"), table, read_ids16)


@pytest.mark.parametrize(
    ("values", "words"), [([255], "no labelled pixel"), ([0, 255], "only one class, background"), ([1], "thing")]
)
def test_training_on_nothing_is_refused(tmp_path: Path, values: list[int], words: str):
    with pytest.raises(UserError, match=rf"the 3 training images show .*{words}.*masks of 0 and 255"):
        check_labels([masks(tmp_path, *values)], CLASSES)


def test_two_classes_anywhere_are_enough(tmp_path: Path):
    one, other = masks(tmp_path / "a", 0), masks(tmp_path / "b", 1)
    check_labels([one, other], CLASSES)
    one.items[0].image.write_bytes(b"broken")
    check_labels([one, other], CLASSES)


def test_all_samples_are_looked_at_before_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preparation, "LOOKED_AT", 2)
    dataset = masks(tmp_path, 0, count=3)
    with pytest.raises(UserError, match="only one class"):
        check_labels([dataset], CLASSES)
    save_rgb(dataset.items[2].label, np.ones((48, 96), np.uint8))
    check_labels([dataset], CLASSES)
