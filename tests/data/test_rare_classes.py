from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import make_gta, save_palette

from recyclelora.data.datasets import FolderDataset, open_dataset, seeded_subset
from recyclelora.data.identity import how_it_reads
from recyclelora.data.rare_classes import ClassCounts, RareClasses
from recyclelora.system.errors import UserError

COUNTS = np.array([[9000, 500, 0, 0], [8000, 0, 2000, 0], [9500, 0, 0, 10], [5000, 4000, 1000, 0]], np.uint32)
"""Four images, four classes."""


def sampler(temperature: float = 0.1) -> RareClasses:
    return RareClasses.of(COUNTS, temperature=temperature, image_pixels=1000, crop_pixels=50)


def test_probabilities_are_dafomers():
    share = COUNTS.sum(0) / COUNTS.sum()
    expected = np.exp((1 - share) / 0.1) / np.exp((1 - share) / 0.1).sum()
    np.testing.assert_allclose(sampler().probabilities, expected, rtol=1e-12)
    assert np.argmax(sampler().probabilities) == 3


def test_small_temperatures_do_not_overflow():
    probabilities = sampler(1e-4).probabilities
    assert np.isfinite(probabilities).all() and probabilities.sum() == pytest.approx(1)
    assert probabilities[3] > 0.999


def test_images_of_a_class_show_enough_of_it_or_any_where_none_does():
    images = [own.tolist() for own in sampler().images]
    assert images == [[0, 1, 2, 3], [3], [1, 3], [2]]


def test_draws_follow_the_probabilities():
    rng = np.random.default_rng(0)
    drawn = [sampler(0.5).draw(rng) for _ in range(4000)]
    counts = Counter(wanted.train_id for _, wanted in drawn)
    np.testing.assert_allclose([counts[c] / 4000 for c in range(4)], sampler(0.5).probabilities, atol=0.03)
    assert all(index in sampler().images[wanted.train_id] and wanted.pixels == 50 for index, wanted in drawn)


def test_absent_classes_are_never_drawn():
    rare = RareClasses.of(COUNTS[:2], temperature=0.1, image_pixels=1, crop_pixels=1)
    assert rare.train_ids.tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="no image of a source has a labelled pixel"):
        RareClasses.of(np.zeros((3, 4)), temperature=0.1, image_pixels=1, crop_pixels=1)


def test_counts_are_the_labels_own_and_kept(tmp_path: Path):
    dataset = open_dataset("gta", "all", root=make_gta(tmp_path, 5))
    store = ClassCounts(tmp_path / "counts")
    assert store.known(dataset, 19) is None
    done: list[int] = []
    counts = store.count(dataset, 19, done.append)
    assert sum(done) == 5
    for index in range(5):
        expected = np.bincount(dataset.load(index).label.ravel(), minlength=256)[:19]
        np.testing.assert_array_equal(counts[index], expected)
    np.testing.assert_array_equal(store.known(dataset, 19), counts)
    assert store.known(seeded_subset(dataset, 3, seed=0), 19) is None


def test_other_labels_or_another_table_are_counted_again(tmp_path: Path):
    dataset = open_dataset("gta", "all", root=make_gta(tmp_path, 2))
    store = ClassCounts(tmp_path / "counts")
    store.count(dataset, 19, lambda count: None)
    table = dataset.table.copy()
    table[7] = 18
    assert store.known(FolderDataset(dataset.name, dataset.root, dataset.items, table), 19) is None
    save_palette(tmp_path / "gta/labels/00001.png", np.full((96, 192), 7))
    assert store.known(dataset, 19) is None


def test_damaged_counts_are_counted_again(tmp_path: Path):
    dataset = open_dataset("gta", "all", root=make_gta(tmp_path, 2))
    store = ClassCounts(tmp_path / "counts")
    store.count(dataset, 19, lambda count: None)
    (path,) = (tmp_path / "counts").glob("*.counts")
    path.write_bytes(path.read_bytes()[:-8])
    assert store.known(dataset, 19) is None


def test_an_unreadable_sample_is_named(tmp_path: Path):
    dataset = open_dataset("gta", "all", root=make_gta(tmp_path, 3))
    (tmp_path / "gta/labels/00002.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"00002\.png"):
        ClassCounts(tmp_path / "counts").count(dataset, 19, lambda count: None)


def test_how_a_dataset_reads_does_not_depend_on_where_or_how_much(tmp_path: Path):
    here, there = (open_dataset("gta", "all", root=make_gta(tmp_path / name, n)) for name, n in (("a", 2), ("b", 4)))
    assert how_it_reads(here) == how_it_reads(there) == how_it_reads(seeded_subset(there, 2, seed=0))


def test_counts_with_a_changed_byte_are_counted_anew(tmp_path: Path):
    dataset = open_dataset("gta", "all", root=make_gta(tmp_path, 2))
    store = ClassCounts(tmp_path / "counts")
    store.store(store.name(dataset, 19), np.ones((2, 19), np.uint32))
    assert store.known(dataset, 19) is not None
    (path,) = (tmp_path / "counts").glob("*.counts")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert store.known(dataset, 19) is None
