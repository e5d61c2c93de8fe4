from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import save_rgb
from fixture_data import blocks

from recyclelora.data.datasets import open_dataset
from recyclelora.system.errors import UserError


def test_kitti_as_downloaded(tmp_path: Path):
    """Twelve images with masks in Cityscapes' ids and two without."""
    rng, root = np.random.default_rng(0), tmp_path / "kitti"
    for part, count in (("training", 12), ("testing", 2)):
        for number in range(count):
            name, ids = f"{number:06}_10.png", blocks(rng, [7, 26, 0])
            save_rgb(root / part / "image_2" / name, np.repeat(ids[..., None], 3, 2).astype(np.uint8))
            if part == "training":
                save_rgb(root / part / "semantic" / name, ids.astype(np.uint8))
    sizes = {split: len(open_dataset("kitti", split, root=tmp_path)) for split in ("train", "val", "all", "test")}
    assert sizes == {"train": 11, "val": 1, "all": 12, "test": 2}
    assert set(np.unique(open_dataset("kitti", "all", root=tmp_path).load(0).label)) == {0, 13, 255}
    assert not open_dataset("kitti", "test", root=tmp_path).labelled
    with pytest.raises(UserError, match="kitti has no split 'official'; it has: train, val, all, test"):
        open_dataset("kitti", "official", root=tmp_path)
    with pytest.raises(UserError, match=r"kitti is not at .*: expected training/image_2"):
        open_dataset("kitti", "all", root=tmp_path / "elsewhere")
