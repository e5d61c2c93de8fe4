"""Small folders in the true layouts and encodings, and typed configurations for fast runs."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from recyclelora.config.compose import home, register_schemas, typed
from recyclelora.config.run import Config

PALETTE = np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes()


def save_palette(path: Path, ids: np.ndarray) -> None:
    """A palette PNG as GTAV ships its labels: indices are label ids, colours are arbitrary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(ids.astype(np.uint8), mode="P")
    mask.putpalette(PALETTE)
    mask.save(path)


def save_rgb(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def blocks_of_ids(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A label-id mask of rectangles with classes, and ids that Cityscapes ignores."""
    coarse = rng.choice([7, 8, 11, 21, 23, 24, 26, 0, 4], size=(4, 6))
    return np.kron(coarse, np.ones((height // 4, width // 6), int))[:height, :width].astype(np.uint8)


def picture(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    """An image whose colours follow the ids, so that there is something to learn."""
    wide = ids.astype(np.int16)
    base = np.stack([wide * 7 % 256, wide * 13 % 256, wide * 29 % 256], -1)
    return np.clip(base + rng.integers(-20, 20, base.shape), 0, 255).astype(np.uint8)


def make_gta(root: Path, count: int = 12, size: tuple[int, int] = (96, 192)) -> Path:
    """GTAV as downloaded; the label of the second image is taller than the image."""
    rng = np.random.default_rng(1)
    for index in range(1, count + 1):
        ids = blocks_of_ids(rng, *size)
        label = np.vstack([ids, ids[:8]]) if index == 2 else ids
        save_rgb(root / "gta" / "images" / f"{index:05d}.png", picture(rng, ids))
        save_palette(root / "gta" / "labels" / f"{index:05d}.png", label)
    return root


def make_cityscapes(root: Path, count: int = 3, size: tuple[int, int] = (96, 192), split: str = "val") -> Path:
    """Cityscapes as downloaded: grey labelIds beside instance ids and colours, which must not be picked up."""
    rng = np.random.default_rng(2)
    for index in range(count):
        stem, city = f"lindau_{index:06d}_000019", "lindau"
        ids = blocks_of_ids(rng, *size)
        save_rgb(root / "cityscapes/leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", picture(rng, ids))
        folder = root / "cityscapes/gtFine" / split / city
        save_rgb(folder / f"{stem}_gtFine_labelIds.png", ids)
        save_rgb(folder / f"{stem}_gtFine_color.png", picture(rng, ids))
        save_rgb(folder / f"{stem}_gtFine_instanceIds.png", ids)
    return root


TINY = [
    "backbone=vit_tiny_test",
    "decoder=linear",
    "data.augment.crop=[64,64]",
    "data.augment.short_edges=[64,96]",
    "data.protocol.window=64",
    "data.protocol.stride=48",
    "trainer.batch_size=2",
    "trainer.num_workers=0",
    "trainer.max_steps=4",
    "trainer.eval_every=4",
    "trainer.eval_images=null",
    "trainer.log_every=1",
    "trainer.num_figures=0",
    "adapter.main.rank=4",
    "adapter.sub.rank=2",
    "tracking=none",
]
"""Overrides of a run that takes seconds on a CPU."""


FOLDER = "/folder-of-a-test"


def compose_config(folder: Path, *overrides: str) -> Config:
    """The shipped configuration with overrides, everything below ``folder``."""
    if any(str(folder) in override for override in overrides):
        return _composed(folder, overrides)
    return _moved(copy.deepcopy(_composed_anywhere(overrides)), str(folder))


@functools.cache
def _composed_anywhere(overrides: tuple[str, ...]) -> Config:
    return _composed(Path(FOLDER), overrides)


def _composed(folder: Path, overrides: tuple[str, ...]) -> Config:
    register_schemas()
    folders = [f"output_dir={folder / 'outputs'}", f"cache={folder / 'cache'}", f"data.root={folder / 'data'}"]
    with initialize_config_dir(str(home() / "conf")):
        config: Config = typed(compose("train", [*folders, *overrides]))
    return config


def _moved(node: Any, folder: str) -> Any:
    """The same configuration, or part of one, with another folder in its paths; in place where it can be."""
    if isinstance(node, str):
        return node.replace(FOLDER, folder)
    if dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            setattr(node, field.name, _moved(getattr(node, field.name), folder))
    elif isinstance(node, dict):
        node.update({key: _moved(value, folder) for key, value in node.items()})
    elif isinstance(node, list):
        node[:] = [_moved(value, folder) for value in node]
    return node


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    """:func:`compose_config` in the test's own folder."""
    return lambda *overrides: compose_config(tmp_path, *overrides)


@pytest.fixture
def gta2city(tmp_path: Path) -> Path:
    """GTAV and Cityscapes below ``tmp_path/data``."""
    make_gta(tmp_path / "data")
    return make_cityscapes(tmp_path / "data")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs; its schema takes seconds to make."""
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Composed once, to be copied."""
    return compose_config(tmp_path_factory.mktemp("tiny"), *TINY)


@pytest.fixture
def tracked_config(tmp_path: Path, empty_store: Path, tiny_config: Config) -> Config:
    """The configuration of a tiny run with a database in its outputs folder."""
    config = copy.deepcopy(tiny_config)
    config.output_dir = str(tmp_path / "outputs")
    (tmp_path / "outputs").mkdir()
    shutil.copy(empty_store, tmp_path / "outputs/mlflow.db")
    return config


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let SIGTERM arrive while step ``step`` runs."""
    from recyclelora.training.trainer import Trainer

    log = Trainer.log

    def logging(self, at, values):
        log(self, at, values)
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "log", logging)
