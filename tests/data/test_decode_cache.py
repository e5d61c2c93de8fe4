from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import make_gta, save_palette

from recyclelora.data.datasets import FolderDataset, Sample, digest, open_dataset
from recyclelora.data.decode_cache import CachedDataset, DecodeCache, sample_key
from recyclelora.system import filecache

BYTES = 96 * 192 * 4 + 32 + len("images/00001.png")
"""Size of one decoded sample of the fixture."""


@pytest.fixture
def gta(tmp_path: Path) -> FolderDataset:
    return open_dataset("gta", "all", root=make_gta(tmp_path, 6))


class Counting(FolderDataset):
    """Tells how often it decoded."""

    def load(self, index: int) -> Sample:
        self.__dict__["decoded"] = [*self.__dict__.get("decoded", []), index]
        return super().load(index)


def counting(dataset: FolderDataset) -> Counting:
    return Counting(dataset.name, dataset.root, dataset.items, dataset.table, nearly=dataset.nearly)


def cached(dataset: FolderDataset, folder: Path, room: float = 100) -> CachedDataset:
    return CachedDataset(dataset, DecodeCache(folder / "decoded", int(room * BYTES)))


def files(folder: Path) -> list[Path]:
    return sorted((folder / "decoded").glob("*/*.raw"))


def same(a: Sample, b: Sample) -> bool:
    return a.name == b.name and np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_samples_are_decoded_once_and_stay_the_same(gta: FolderDataset, tmp_path: Path):
    base = counting(gta)
    dataset = cached(base, tmp_path)
    for _ in range(3):
        for index in range(6):
            assert same(dataset.load(index), gta.load(index))
    assert base.decoded == list(range(6))
    assert same(cached(base, tmp_path).load(2), gta.load(2))  # another process would find them too
    assert len(base.decoded) == 6


def test_it_stands_for_the_dataset_it_keeps(gta: FolderDataset, tmp_path: Path):
    dataset = cached(gta, tmp_path)
    assert (dataset.name, len(dataset), dataset.entries()) == (gta.name, 6, gta.entries())
    assert digest([dataset]) == digest([gta])


def test_changed_files_and_tables_have_other_keys(gta: FolderDataset):
    key = sample_key(gta, 0)
    assert key == sample_key(gta, 0) != sample_key(gta, 1)
    other = gta.table.copy()
    other[7] = 5
    assert sample_key(FolderDataset(gta.name, gta.root, gta.items, other), 0) != key
    save_palette(gta.items[0].label, np.full((96, 192), 8))
    assert sample_key(gta, 0) != key


@pytest.mark.parametrize("damage", ["truncated", "flipped", "swapped", "empty", "foreign"])
def test_damaged_files_are_decoded_again(gta: FolderDataset, tmp_path: Path, damage: str):
    dataset = cached(gta, tmp_path)
    expected = dataset.load(0)
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[:-100]
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "swapped":  # two pages of a file system, which a plain sum would not see
        data[32 : 32 + 4096], data[32 + 4096 : 32 + 8192] = data[32 + 4096 : 32 + 8192], data[32 : 32 + 4096]
    elif damage == "empty":
        data = bytearray()
    else:
        data[:8] = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(data)
    assert same(dataset.load(0), expected)
    assert path.read_bytes() != bytes(data)
    assert same(dataset.load(0), expected)


def test_every_flipped_bit_is_noticed(gta: FolderDataset, tmp_path: Path):
    dataset = cached(gta, tmp_path)
    dataset.load(0)
    (path,) = files(tmp_path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for position in [*range(20), *rng.integers(24, len(data), 100)]:
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        assert dataset.cache.load(f"{path.parent.name}/{path.stem}") is None, position


def test_samples_in_use_are_not_pushed_out(gta: FolderDataset, tmp_path: Path):
    base = counting(gta)
    dataset = cached(base, tmp_path, room=4)
    with pytest.warns(UserWarning, match=r"full of entries in use; raise data\.decode_cache above") as told:
        for _ in range(3):
            for index in range(6):
                dataset.load(index)
    assert len(told) == 1
    assert base.decoded == [0, 1, 2, 3, 4, 5, 4, 5, 4, 5]  # the first four are kept
    for path in files(tmp_path):
        age(path, DecodeCache.in_use + 60)
    filecache._closed_until.clear()  # as in another process
    cached(base, tmp_path, room=4).load(5)
    assert dataset.cache.path(sample_key(gta, 5)).exists()


def _read_all(root: Path, folder: Path, room: float, results: multiprocessing.Queue) -> None:
    warnings.simplefilter("ignore")
    gta = open_dataset("gta", "all", root=root)
    dataset = cached(gta, folder, room)
    results.put(all(same(dataset.load(index), gta.load(index)) for _ in range(4) for index in range(6)))


@pytest.mark.parametrize("room", [100, 3])
def test_many_processes_share_the_folder_within_its_bound(gta: FolderDataset, tmp_path: Path, room: float):
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue = context.Queue()
    readers = [context.Process(target=_read_all, args=(tmp_path, tmp_path, room, results)) for _ in range(4)]
    for reader in readers:
        reader.start()
    assert [results.get(timeout=60) for _ in readers] == [True] * 4
    for reader in readers:
        reader.join()
    assert 0 < sum(path.stat().st_size for path in files(tmp_path)) <= room * BYTES
