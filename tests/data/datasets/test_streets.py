"""Rendered scenes as a dataset: each is painted once and kept."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from recyclelora.data import streets
from recyclelora.data.datasets import Sample, StreetsDataset
from recyclelora.data.datasets.streets import SceneCache
from recyclelora.data.streets import SIZE, render


def dataset(folder: Path, look: str = "day") -> StreetsDataset:
    return StreetsDataset("streets", look, "val", SceneCache(folder))


def equal(left: Sample, right: Sample) -> bool:
    return np.array_equal(left.image, right.image) and np.array_equal(left.label, right.label)


def test_the_cache_returns_what_was_rendered(tmp_path: Path):
    first = dataset(tmp_path, "rain").load(1)
    image, label = render("rain", "val", 1)
    assert np.array_equal(first.image, image) and np.array_equal(first.label, label)
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")] == ["streets-v1/rain_val/001.png"]
    assert dataset(tmp_path, "rain").missing() == [0, *range(2, 40)]
    assert equal(dataset(tmp_path, "rain").load(1), first)
    assert equal(StreetsDataset("streets", "rain", "val", None).load(1), first)


def test_the_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = dataset(tmp_path).load(0)
    monkeypatch.setattr(streets, "render", lambda *_: pytest.fail("painted again"))
    assert equal(dataset(tmp_path).load(0), first)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other size", "no labels", "other labels"])
def test_a_broken_file_is_painted_again(tmp_path: Path, damage: str):
    first = dataset(tmp_path).load(0)
    path = next(tmp_path.rglob("*.png"))
    good = path.read_bytes()
    foreign = {
        "other size": np.zeros((8, 8, 4), np.uint8),
        "no labels": np.zeros((*SIZE, 3), np.uint8),
        "other labels": np.full((*SIZE, 4), 33, np.uint8),
    }
    if damage in foreign:
        path.write_bytes(cv2.imencode(".png", foreign[damage])[1].tobytes())
    else:
        path.write_bytes({"empty": b"", "cut": good[: len(good) // 2], "text": b"not a picture"}[damage])
    with pytest.warns(UserWarning, match="streets cache .*damaged"):
        assert equal(dataset(tmp_path).load(0), first)
    assert path.read_bytes() == good


def test_scenes_of_other_versions_leave_first(tmp_path: Path):
    old = tmp_path / "streets-v0" / "day_val" / "000.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(300_000))
    StreetsDataset("streets", "day", "val", SceneCache(tmp_path, 500_000)).load(0)
    assert not old.exists() and (tmp_path / "streets-v1/day_val/000.png").exists()


def _sums(folder: Path) -> list[int]:
    source = StreetsDataset("streets", "source", "val", SceneCache(folder))
    return [int(source.load(index).image.sum()) for index in range(3)]


def test_processes_may_share_the_cache(tmp_path: Path):
    with ProcessPoolExecutor(3) as pool:
        answers = list(pool.map(_sums, [tmp_path] * 6))
    assert all(answer == answers[0] for answer in answers)
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["000.png", "001.png", "002.png"]
