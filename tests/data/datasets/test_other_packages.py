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
from conftest import TINY
from fixture_data import blocks
from installing import install, install_project
from PIL import Image

from recyclelora.config.compose import home
from recyclelora.data.config import dataset_names
from recyclelora.data.datasets import open_dataset
from recyclelora.system.errors import UserError
from recyclelora.system.plugins import installed

EXAMPLE = home() / "examples/kitti_dataset"


@pytest.fixture(autouse=True)
def looked_up_anew() -> Iterator[None]:
    installed.cache_clear()
    yield
    installed.cache_clear()
    for name in ("kitti_dataset", "mine_package"):
        sys.modules.pop(name, None)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install_project(EXAMPLE, tmp_path / "site")


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """Twelve images with masks in Cityscapes' ids and two without."""
    rng = np.random.default_rng(0)
    for part, count in (("training", 12), ("testing", 2)):
        for number in range(count):
            name, ids = f"{number:06}_10.png", blocks(rng, [7, 26, 0])
            for folder in ("image_2", "semantic")[: 2 if part == "training" else 1]:
                (tmp_path / "data/kitti" / part / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.repeat(ids[..., None], 3, 2).astype(np.uint8)).save(
                tmp_path / "data/kitti" / part / "image_2" / name
            )
            if part == "training":
                Image.fromarray(ids.astype(np.uint8)).save(tmp_path / "data/kitti/training/semantic" / name)
    return tmp_path / "data"


def test_the_example_reads_its_dataset(site: Path, kitti: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(site)
    assert dataset_names()[-1] == "kitti"
    sizes = {split: len(open_dataset("kitti", split, root=kitti)) for split in ("train", "val", "all", "test")}
    assert sizes == {"train": 11, "val": 1, "all": 12, "test": 2}
    assert set(np.unique(open_dataset("kitti", "all", root=kitti).load(0).label)) == {0, 13, 255}
    assert not open_dataset("kitti", "test", root=kitti).labelled
    with pytest.raises(UserError, match="kitti has no split 'official'; it has: train, val, all, test"):
        open_dataset("kitti", "official", root=kitti)
    with pytest.raises(UserError, match=r"kitti is not at .*: expected training/image_2"):
        open_dataset("kitti", "all", root=site)


@pytest.mark.slow
def test_the_example_is_scored_from_the_command_line(site: Path, kitti: Path, gta2city: Path, tmp_path: Path):
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    options = [o for o in TINY if not o.startswith("data=")]
    places = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={kitti}"]
    done = subprocess.run(
        [sys.executable, str(home() / "train.py"), *options, *places, "data=gta2kitti"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "outputs/runs").glob("*gta2kitti*/result.json")
    assert json.loads(path.read_text())["miou"]["targets"].keys() == {"kitti"}


def test_a_dataset_that_nobody_reads_is_refused(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="unknown dataset 'kitty'; known: folder, streets, acdc"):
        open_dataset("kitty", "all", root=tmp_path)
    monkeypatch.syspath_prepend(site)
    installed.cache_clear()
    with pytest.raises(UserError, match=r"unknown dataset 'kitty'; known: .*urbansyn, kitti"):
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
