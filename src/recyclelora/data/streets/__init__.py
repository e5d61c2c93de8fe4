"""`streets`: procedural driving scenes with pixel-exact Cityscapes train ids, for machines without data or network.

A scene is fixed by (STREETS_VERSION, look, split, index) alone. Looks are domains: train on `source`, test on the
others. Every look has its own scenes. The painter's rooms stand beside this one: the public face and the cache.
"""

import contextlib
import shutil
import uuid
import warnings
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from recyclelora.data.streets.canvas import SIZE
from recyclelora.data.streets.city import paint_street
from recyclelora.data.streets.develop import develop
from recyclelora.data.streets.looks import LOOK_TABLE

__all__ = ["LOOKS", "SIZE", "SPLITS", "STREETS_VERSION", "missing", "num_scenes", "render", "scene"]

STREETS_VERSION = 1
LOOKS = tuple(LOOK_TABLE)
SPLITS = ("train", "val")
_COUNTS = {("source", "train"): 400} | {(look, "val"): 40 for look in LOOKS}

_IS_TRAIN_ID = np.isin(np.arange(256), [*range(19), 255])

Bytes = NDArray[np.uint8]
Scene = tuple[Bytes, Bytes]


def num_scenes(look: str, split: str) -> int:
    """How many scenes a look has in a split; ValueError for a pair that does not exist."""
    if (look, split) not in _COUNTS:
        allowed = ", ".join(f"{name}/{part}" for name, part in _COUNTS)
        raise ValueError(f"streets has no {look}/{split}; choose one of {allowed}")
    return _COUNTS[look, split]


def _seed(look: str, split: str, index: int) -> list[int]:
    count = num_scenes(look, split)
    if not 0 <= index < count:
        raise ValueError(f"streets {look}/{split} has scenes 0 to {count - 1}, not {index}")
    return [STREETS_VERSION, LOOKS.index(look), SPLITS.index(split), int(index)]


def render(look: str, split: str, index: int) -> Scene:
    """Paint one scene: uint8 RGB (256, 512, 3) and uint8 train ids (256, 512), where 255 is to be ignored."""
    seed = _seed(look, split, index)
    painting = paint_street(LOOK_TABLE[look], seed)
    return develop(painting, LOOK_TABLE[look], np.random.default_rng([*seed, 2])), painting.labels


def scene(look: str, split: str, index: int, cache_dir: Path | None) -> Scene:
    """The same arrays as `render`, kept as lossless PNG (RGB + train id) under `cache_dir/streets-v1` if one is given.

    At most 720 files of 0.2 to 0.35 MB each (about 190 MB in all) are ever written. Broken files are painted again,
    and the folders of other versions are removed. Any number of processes may share the folder.
    """
    _seed(look, split, index)
    if cache_dir is None:
        return render(look, split, index)
    path = _path(look, split, index, cache_dir)
    found = _read(path)
    if found is None:
        found = render(look, split, index)
        try:
            _write(path, *found)
        except OSError as error:
            warnings.warn(f"streets cache {cache_dir}: not written ({error.strerror})", stacklevel=2)
    return found


def missing(look: str, split: str, cache_dir: Path) -> list[int]:
    """Indices of the scenes that the cache does not hold yet."""
    return [index for index in range(num_scenes(look, split)) if not _path(look, split, index, cache_dir).is_file()]


def _path(look: str, split: str, index: int, cache_dir: Path) -> Path:
    return _folder(cache_dir) / f"{look}_{split}" / f"{index:03d}.png"


def _folder(cache_dir: Path) -> Path:
    """Where this version's scenes are kept."""
    return cache_dir / f"streets-v{STREETS_VERSION}"


def _make_folder(folder: Path) -> None:
    """Create a folder of this version; with the first one the folders of other versions go."""
    version = folder.parent
    if not version.is_dir():
        version.mkdir(parents=True, exist_ok=True)
        for old in version.parent.glob("streets-v*"):
            if old != version:
                shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(exist_ok=True)


def _read(path: Path) -> Scene | None:
    """A cached scene, or None where the file is missing, broken or not one of ours."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return None
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None or image.shape != (*SIZE, 4) or image.dtype != np.uint8:
        return None
    rgb: Bytes = np.ascontiguousarray(image[..., 2::-1])
    labels: Bytes = np.ascontiguousarray(image[..., 3])
    return (rgb, labels) if _IS_TRAIN_ID[labels].all() else None


def _write(path: Path, image: Bytes, labels: Bytes) -> None:
    """Write a scene under a name of its own, then move it into place in one step."""
    _make_folder(path.parent)
    encoded = cv2.imencode(".png", np.dstack([image[..., ::-1], labels]))[1]
    draft = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.part")
    try:
        draft.write_bytes(encoded.tobytes())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
