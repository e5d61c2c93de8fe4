from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import make_gta

from recyclelora.data.augment import AugmentConfig
from recyclelora.data.datasets import Sample, open_dataset
from recyclelora.data.decode_cache import CachedDataset, DecodeCache
from recyclelora.data.extra_augmentation import ExtraAugmentation
from recyclelora.data.loaders import StepSampler, TrainStream, eval_loader, shares, train_loader
from recyclelora.data.rare_classes import RareClasses
from recyclelora.data.transforms import Augmentation
from recyclelora.data.workers import Loader
from recyclelora.system.errors import UserError

AUGMENT = Augmentation(crop=(8, 8), short_edges=(8, 12))


@dataclass
class Numbered:
    """Images that carry their own index."""

    size: int
    name: str = "numbered"

    def __len__(self) -> int:
        return self.size

    def load(self, index: int) -> Sample:
        image = np.random.default_rng(index).integers(0, 256, (10, 14, 3)).astype(np.uint8)
        return Sample(image, np.full((10, 14), index % 19, np.uint8), str(index))

    def entries(self) -> list[str]:
        return [str(self.size)]


def batches(stream, *, start=0, stop=5, num_workers=0, rank=0, world_size=1):
    sampler = StepSampler(4, start, stop, rank, world_size)
    return list(train_loader(stream, sampler, num_workers=num_workers))


def test_every_image_once_an_epoch():
    stream = TrainStream([Numbered(7), Numbered(5)], [None, None], AUGMENT, seed=0)
    for epoch in range(3):
        seen = [stream.address(epoch * 12 + slot) for slot in range(12)]
        assert sorted(seen) == [(0, i) for i in range(7)] + [(1, i) for i in range(5)]
    assert [stream.address(p) for p in range(12)] != [stream.address(p) for p in range(12, 24)]


def test_weights_set_the_share_of_a_source():
    assert shares([300, 100], [None, None]) == [300, 100]
    assert shares([300, 100], [1.0, 1.0]) == [200, 200]
    assert shares([300, 100], [3.0, 1.0]) == [300, 100]
    stream = TrainStream([Numbered(30), Numbered(10)], [1.0, 1.0], AUGMENT, seed=0)
    counts = Counter(stream.address(position) for position in range(400))
    assert sum(n for (source, _), n in counts.items() if source == 0) == 200
    assert {n for (source, _), n in counts.items() if source == 1} == {20}


def test_samples_do_not_depend_on_workers_or_where_a_run_starts():
    stream = TrainStream([Numbered(9)], [None], AUGMENT, seed=3)
    whole = batches(stream)
    for other in (batches(stream, num_workers=2), batches(stream, stop=2) + batches(stream, start=2)):
        assert len(other) == len(whole)
        for (a, b), (c, d) in zip(whole, other, strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)


EVERYTHING = ExtraAugmentation(
    AugmentConfig(style_jitter=0.5, style_mix=0.5, fourier=0.5, fourier_beta=0.2, class_mix=0.5, corruption=0.5)
)
"""All extras, each in about half of the samples."""


def painted(size: int, seed: int) -> np.ndarray:
    """Pixels of each of three classes in each of ``size`` images."""
    return np.random.default_rng(seed).integers(0, 50, (size, 3))


def rich_stream(tmp_path: Path, *, seed: int = 3) -> TrainStream:
    """Files behind the decode cache beside arrays, weights, rare classes and all extras."""
    if not (tmp_path / "gta").exists():
        make_gta(tmp_path, 5, (32, 48))
    gta = CachedDataset(open_dataset("gta", "all", root=tmp_path), DecodeCache(tmp_path / "cache", 1 << 20))
    rare = [RareClasses.of(painted(n, n), temperature=0.3, image_pixels=10, crop_pixels=3) for n in (5, 7)]
    augment = Augmentation(crop=(16, 16), short_edges=(16, 24))
    return TrainStream([gta, Numbered(7)], [1.0, 0.5], augment, seed, EVERYTHING, rare)


def equal(some: list, others: list) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("num_workers", [0, 1, 4])
def test_samples_are_the_same_with_all_options_on(tmp_path: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch):
    """Any worker count, cold and warm cache, a run that starts in the middle, and both of two ranks."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(4))  # four workers also on a machine with two cores
    expected = batches(rich_stream(tmp_path / "other"))
    for _ in range(2):
        assert equal(batches(rich_stream(tmp_path), num_workers=num_workers), expected)
    parts = [batches(rich_stream(tmp_path), start=a, stop=b, num_workers=num_workers) for a, b in ((0, 2), (2, 5))]
    assert equal(parts[0] + parts[1], expected)
    ranks = [batches(rich_stream(tmp_path), num_workers=num_workers, rank=r, world_size=2) for r in (0, 1)]
    assert equal([tuple(map(torch.cat, zip(a, b, strict=True))) for a, b in zip(*ranks, strict=True)], expected)


def test_each_option_changes_samples_but_not_the_published_draws(tmp_path: Path):
    plain = TrainStream([Numbered(9)], [None], AUGMENT, seed=0)
    for name in ("style_jitter", "style_mix", "fourier", "corruption"):
        other = TrainStream(
            [Numbered(9)], [None], AUGMENT, 0, ExtraAugmentation(AugmentConfig(**{name: 1.0}, fourier_beta=0.2))
        )
        assert all(np.array_equal(plain[p][1], other[p][1]) for p in range(9)), name
        assert all(not np.array_equal(plain[p][0], other[p][0]) for p in range(9)), name
    pasted = TrainStream([Numbered(9)], [None], AUGMENT, 0, ExtraAugmentation(AugmentConfig(class_mix=1.0)))
    assert all(np.array_equal(plain[p][1], pasted[p][1]) is False for p in range(9))
    rarely = TrainStream([Numbered(9)], [None], AUGMENT, 0, ExtraAugmentation(AugmentConfig(class_mix=1e-12)))
    assert all(np.array_equal(plain[p][0], rarely[p][0]) for p in range(9))


@dataclass
class Flat(Numbered):
    """Images of one class and colour."""

    value: int = 0

    def load(self, index: int) -> Sample:
        return Sample(np.full((10, 14, 3), self.value, np.uint8), np.full((10, 14), self.value, np.uint8), str(index))


def test_mixes_borrow_from_another_source():
    """With sources of one class each, a paste shows which source it came from."""
    sources = [Flat(4, value=1), Flat(4, value=2), Flat(4, value=3)]
    stream = TrainStream(
        sources, [None] * 3, Augmentation((8, 8), (10,)), 0, ExtraAugmentation(AugmentConfig(class_mix=1.0))
    )
    seen = {(stream.address(p)[0] + 1, *np.unique(stream[p][1])) for p in range(120)}
    assert seen == {(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)}


def test_mixes_within_one_source_take_another_image():
    stream = TrainStream([Numbered(4)], [None], AUGMENT, 0, ExtraAugmentation(AugmentConfig(class_mix=1.0)))
    seen = {(stream.address(p)[1], *np.unique(stream[p][1])) for p in range(80)}
    assert all(label not in (own, 255) for own, label in seen) and len(seen) == 12


def test_rare_classes_keep_the_shares_of_the_sources():
    """Class 5 is shown by one image of the second source only."""
    counts = np.zeros((40, 19), int)
    counts[:, 0], counts[3, 5] = 100, 1
    rare = RareClasses.of(counts, temperature=0.01, image_pixels=1, crop_pixels=0)
    stream = TrainStream([Numbered(40), Numbered(40)], [1.0, 3.0], AUGMENT, 0, rare=[None, rare])
    shown = Counter()
    for position in range(200):
        source, _ = stream.address(position)
        shown[source, int(np.unique(stream[position][1])[0])] += 1
    assert sum(n for (source, _), n in shown.items() if source == 0) == pytest.approx(50, abs=12)
    assert shown[1, 3] == sum(n for (source, _), n in shown.items() if source == 1)
    assert len({label for source, label in shown if source == 0}) > 10


@dataclass
class Broken(Numbered):
    """One image that cannot be read, or kills its reader."""

    kill: bool = False

    def load(self, index: int) -> Sample:
        if index == 5 and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 5:
            raise UserError("/data/5.png: cannot be read: truncated PNG\nlook at it")
        return super().load(index)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_workers_refusal_comes_in_its_own_words(num_workers: int):
    with pytest.raises(UserError) as caught:
        batches(TrainStream([Broken(9)], [None], AUGMENT, seed=0), num_workers=num_workers)
    assert str(caught.value) == "/data/5.png: cannot be read: truncated PNG\nlook at it"
    scored = [sample for samples in eval_loader(Broken(9), num_workers=num_workers) for sample in samples]
    assert [index for index, sample in enumerate(scored) if isinstance(sample, UserError)] == [5]  # the others are read
    assert str(scored[5]).startswith("/data/5.png: cannot be read")


KILLED = """
import sys
sys.path[:0] = {path!r}
from test_loaders import Broken, eval_loader
try:
    list(eval_loader(Broken(9, kill=True), num_workers=1))
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


def test_a_killed_worker_is_explained():
    """In a process of its own: torch reports a child's death by an exception in whatever the parent is doing."""
    script = KILLED.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert re.fullmatch(r"UserError a data worker was killed.*lower trainer\.num_workers\n", done.stdout), done


class Failing:
    """In a DataLoader's place: fails as one does whose worker dies while it hands a batch over."""

    def __init__(self, error: Exception, num_workers: int) -> None:
        self.error, self.num_workers = error, num_workers

    def __iter__(self):
        raise self.error


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "reset by peer"), EOFError(), FileNotFoundError(2, "socket")]
)
def test_a_worker_killed_while_it_hands_a_batch_over_is_explained(error: Exception):
    loader = Loader(Numbered(1), [[0]], list, num_workers=1)
    loader.loader = Failing(error, 1)
    with pytest.raises(UserError, match="a data worker was killed"):
        list(loader)


@pytest.mark.parametrize(
    ("error", "num_workers"),
    [
        (FileNotFoundError(2, "a.png"), 0),
        (FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0."), 1),
        (OSError(24, "Too many open files"), 1), (RuntimeError("shapes differ"), 1),
    ],
)  # fmt: skip
def test_other_errors_are_left_as_they_are(error: Exception, num_workers: int):
    loader = Loader(Numbered(1), [[0]], list, num_workers=0)
    loader.loader = Failing(error, num_workers)
    with pytest.raises(type(error)) as caught:
        list(loader)
    assert caught.value is error


def test_no_more_workers_than_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(3))
    stream = TrainStream([Numbered(9)], [None], AUGMENT, seed=0)
    assert [train_loader(stream, StepSampler(4, 0, 5), num_workers=n).loader.num_workers for n in (0, 2, 64)] == [
        0,
        2,
        3,
    ]


def test_workers_compute_on_one_thread():
    @dataclass
    class Threads(Numbered):
        def load(self, index: int) -> Sample:
            counts = np.array([[cv2.getNumThreads(), torch.get_num_threads()]], np.uint8)
            return Sample(np.zeros((1, 2, 3), np.uint8), counts, "")

    ((_, label),) = next(iter(eval_loader(Threads(1), num_workers=1)))
    assert label.tolist() == [[1, 1]]


def test_ranks_share_the_global_batch():
    stream = TrainStream([Numbered(9)], [None], AUGMENT, seed=3)
    whole, first, second = batches(stream), batches(stream, world_size=2), batches(stream, rank=1, world_size=2)
    for (image, _), (a, _), (b, _) in zip(whole, first, second, strict=True):
        assert torch.equal(image, torch.cat([a, b]))


def test_seed_changes_order_and_augmentation():
    first, other = (TrainStream([Numbered(9)], [None], AUGMENT, seed=s) for s in (0, 1))
    assert [first.address(p) for p in range(9)] != [other.address(p) for p in range(9)]


def test_batch_layout():
    images, labels = batches(TrainStream([Numbered(9)], [None], AUGMENT, seed=0))[0]
    assert images.shape == (4, 3, 8, 8) and labels.shape == (4, 8, 8)
    assert images.dtype == labels.dtype == torch.uint8


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_gives_samples_as_they_are(num_workers: int):
    """In order, bit for bit, and also where a sample is read-only as from a cache."""

    @dataclass
    class Fixed(Numbered):
        def load(self, index: int) -> Sample:
            sample = super().load(index)
            sample.image.setflags(write=False)
            return sample

    seen = [pair for batch in eval_loader(Fixed(5), batch_size=2, num_workers=num_workers) for pair in batch]
    for index, (image, label) in enumerate(seen):
        np.testing.assert_array_equal(image, Numbered(5).load(index).image)
        np.testing.assert_array_equal(label, Numbered(5).load(index).label)
        assert image.dtype == label.dtype == np.uint8


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_image_once_over_all_ranks(world_size):
    dataset = Numbered(7)
    seen = [
        int(label[0, 0])
        for rank in range(world_size)
        for batch in eval_loader(dataset, batch_size=2, rank=rank, world_size=world_size)
        for _, label in batch
    ]
    assert sorted(seen) == list(range(7))
