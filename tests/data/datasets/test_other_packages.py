"""A dataset from another package: the example, installed as a package manager would, and what can go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, save_rgb
from fixture_data import blocks
from installing import install, install_project

from recyclelora.config.compose import home
from recyclelora.data.config import dataset_names
from recyclelora.data.datasets import open_dataset
from recyclelora.system.errors import UserError
from recyclelora.system.plugins import installed

EXAMPLE = home() / "examples/kitti360_dataset"


@pytest.fixture(autouse=True)
def looked_up_anew() -> Iterator[None]:
    installed.cache_clear()
    yield
    installed.cache_clear()
    for name in ("kitti360_dataset", "mine_package"):
        sys.modules.pop(name, None)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install_project(EXAMPLE, tmp_path / "site")


@pytest.fixture
def kitti360(tmp_path: Path) -> Path:
    """Frames of two drives as the download's lists name them."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data/kitti360"
    for split, drives in {"train": ("0000_sync", "0002_sync"), "val": ("0000_sync",)}.items():
        lines = []
        for drive in drives:
            for number in range(3):
                frame = f"2013_05_28_drive_{drive}/image_00/{{}}/{split}{number:08}.png"
                image, mask = (
                    f"data_2d_raw/{frame.format('data_rect')}",
                    f"data_2d_semantics/train/{frame.format('semantic')}",
                )
                ids = blocks(rng, [7, 26, 39])
                save_rgb(root / image, np.repeat(ids[..., None], 3, 2).astype(np.uint8))
                save_rgb(root / mask, ids.astype(np.uint8))
                lines.append(f"{image} {mask}")
        (root / f"data_2d_semantics/train/2013_05_28_drive_{split}_frames.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


def test_the_example_reads_its_dataset(site: Path, kitti360: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(site)
    assert dataset_names()[-1] == "kitti360"
    train, val = (open_dataset("kitti360", split, root=kitti360) for split in ("train", "val"))
    assert (len(train), len(val), len(set(train.drives()))) == (6, 3, 2)
    assert set(np.unique(train.load(0).label)) == {0, 13, 255}  # a trash bin has no class
    with pytest.raises(UserError, match="kitti360 has no split 'test'; it has: train, val"):
        open_dataset("kitti360", "test", root=kitti360)
    with pytest.raises(UserError, match=r"kitti360 is not at .*: expected data_2d_semantics/train/2013"):
        open_dataset("kitti360", "val", root=site)


@pytest.mark.slow
def test_the_example_is_scored_from_the_command_line(site: Path, kitti360: Path, gta2city: Path, tmp_path: Path):
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    options = [o for o in TINY if not o.startswith("data=")]
    places = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={kitti360}"]
    done = subprocess.run(
        [sys.executable, str(home() / "train.py"), *options, *places, "data=gta2kitti360"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "outputs/runs").glob("*gta2kitti360*/result.json")
    assert json.loads(path.read_text())["miou"]["targets"].keys() == {"kitti360"}


def test_a_dataset_that_nobody_reads_is_refused(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="unknown dataset 'kitty'; known: folder, streets, acdc"):
        open_dataset("kitty", "all", root=tmp_path)
    monkeypatch.syspath_prepend(site)
    installed.cache_clear()
    with pytest.raises(UserError, match=r"unknown dataset 'kitty'; known: .*wilddash, kitti360"):
        open_dataset("kitty", "all", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("gta", "def read(request): ...", "package mine, entry point gta = mine_package:read: 'gta' is built in"),
        ("mine", "read = 3", "entry point mine = mine_package:read: must be callable"),
        ("mine", "def read(request): return []", "dataset 'mine': its reader must return a FolderDataset, not list"),
    ],
)
def test_a_broken_reader_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, message: str
):
    (tmp_path / "mine_package").mkdir()
    (tmp_path / "mine_package/__init__.py").write_text(source)
    install(tmp_path / "mine_package", "mine", {"recyclelora.datasets": {name: "mine_package:read"}}, tmp_path / "s")
    monkeypatch.syspath_prepend(tmp_path / "s")
    with pytest.raises(UserError, match=message):
        open_dataset("mine", "all", root=tmp_path)
