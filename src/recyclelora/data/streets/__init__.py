"""`streets`: procedural driving scenes with pixel-exact Cityscapes train ids, for machines without data or network.

A scene is fixed by (STREETS_VERSION, look, split, index) alone. Looks are domains: train on `source`, test on the
others. Every look has its own scenes. The painter's rooms stand beside this public face.
"""

import numpy as np
from numpy.typing import NDArray

from recyclelora.data.streets.canvas import SIZE
from recyclelora.data.streets.city import paint_street
from recyclelora.data.streets.develop import develop
from recyclelora.data.streets.looks import LOOK_TABLE

__all__ = ["LOOKS", "SIZE", "SPLITS", "STREETS_VERSION", "num_scenes", "render"]

STREETS_VERSION = 1
LOOKS = tuple(LOOK_TABLE)
SPLITS = ("train", "val")
_COUNTS = {("source", "train"): 400} | {(look, "val"): 40 for look in LOOKS}

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
