from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from fixture_data import make_mapillary, make_synthia
from PIL import Image

from recyclelora.data.corruptions import corrupt
from recyclelora.data.datasets import Corrupted, HalfSize, digest, open_dataset
from recyclelora.data.labels import IGNORE


def test_corrupted_changes_images_and_the_digest_only(tmp_path: Path):
    clean = open_dataset("synthia", "all", root=make_synthia(tmp_path, 3))
    noisy = Corrupted(clean, "gaussian_noise", 2)
    a, b = clean.load(1), noisy.load(1)
    np.testing.assert_array_equal(a.label, b.label)
    np.testing.assert_array_equal(b.image, corrupt(a.image, "gaussian_noise", 2, name=a.name))
    assert (noisy.name, len(noisy), noisy.classes, noisy.labelled) == ("synthia", 3, clean.classes, True)
    assert len({digest([d]) for d in (clean, noisy, Corrupted(clean, "gaussian_noise", 3))}) == 3


def test_half_size_copies_as_published(tmp_path: Path):
    whole = open_dataset("mapillary", "val", root=make_mapillary(tmp_path))
    full, half = whole.load(0), HalfSize(whole).load(0)
    assert full.label.shape == (81, 121) and half.label.shape == (40, 60) == half.image.shape[:2]
    small = Image.fromarray(full.image).resize((60, 40), Image.Resampling.BICUBIC)
    stored = io.BytesIO()
    small.save(stored, "JPEG", quality=75)
    np.testing.assert_array_equal(half.image, np.asarray(Image.open(stored)))
    # nearest neighbour takes the pixel under the middle of each new one: (i + 0.5) * 81 / 40
    rows, columns = ((np.arange(n) + 0.5) * size / n for n, size in ((40, 81), (60, 121)))
    np.testing.assert_array_equal(half.label, full.label[np.ix_(rows.astype(int), columns.astype(int))])
    assert set(np.unique(half.label)) <= {*whole.classes, IGNORE}
    assert HalfSize(whole).entries() == whole.entries()
