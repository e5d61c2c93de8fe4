"""mmsegmentation's published training pipeline as one process, for data_pipeline.py; runs in an environment of its own.

Two things keep mmsegmentation 1.2.2 from being imported beside mmcv-lite 2.2.0, and neither touches the transforms: it
refuses mmcv 2.2.0 by an upper bound, and it imports compiled operators that mmcv-lite does not have.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from unittest import mock

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import cv2
import mmcv
import numpy as np
import torch

mmcv.__version__ = "2.1.0"
sys.modules["mmcv.ops"] = mock.MagicMock(name="mmcv.ops")

from mmcv.transforms import LoadImageFromFile, Pad, RandomChoiceResize, RandomFlip  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmseg.datasets.transforms import (  # noqa: E402
    LoadAnnotations,
    PackSegInputs,
    PhotoMetricDistortion,
    RandomCrop,
    ResizeShortestEdge,
    transforms,
)

EDGES = [256, 307, 358, 409, 460, 512, 563, 614, 665, 716, 768, 819, 870, 921, 972, 1024]
CROP = (512, 512)


def published() -> list[Callable[[dict], dict]]:
    """The chain as configurations write it; padding, which they leave to the model's preprocessor, is done here."""
    return [
        LoadImageFromFile(),
        LoadAnnotations(),
        RandomChoiceResize(scales=EDGES, resize_type="ResizeShortestEdge", max_size=2048),
        RandomCrop(crop_size=CROP, cat_max_ratio=0.75),
        RandomFlip(prob=0.5),
        PhotoMetricDistortion(),
        Pad(size=CROP, pad_val={"img": 0, "seg": 255}),
        PackSegInputs(),
    ]


def start(image: str, label: str) -> dict:
    return {"img_path": image, "seg_map_path": label, "reduce_zero_label": False, "seg_fields": []}


def run(steps: list[Callable[[dict], dict]], results: dict) -> dict:
    for step in steps:
        results = step(results)
    return results


class Queue:
    """Stands for numpy's generator inside PhotoMetricDistortion: hands out the values that were asked for."""

    def __init__(self, given: dict) -> None:
        def coin(name: str) -> list:
            return [0] if given[name] is None else [1, given[name]]

        contrast, first = coin("contrast"), given["contrast_first"]
        colours = coin("saturation") + coin("hue")
        self.values = [*coin("brightness"), int(first), *(contrast + colours if first else colours + contrast)]

    def randint(self, *_: object) -> int:
        """The next value, whatever the range."""
        return self.values.pop(0)

    uniform = randint


def forced(order: dict) -> None:
    """The chain with given draws; saves RGB after the geometry and at the end, and the label."""
    given = order["parameters"]
    crop = RandomCrop(crop_size=CROP)
    top, left = given["top"], given["left"]
    crop.crop_bbox = lambda results: (top, top + CROP[0], left, left + CROP[1])
    results = run(
        [
            LoadImageFromFile(),
            LoadAnnotations(),
            ResizeShortestEdge(scale=given["short_edge"], max_size=2048),
            crop,
            RandomFlip(prob=float(given["flip"])),
        ],
        start(order["image"], order["label"]),
    )
    np.save(f"{order['save']}.geometry.npy", results["img"][..., ::-1])
    with mock.patch.object(transforms, "random", Queue(given)):
        results = PhotoMetricDistortion()(results)
    np.save(f"{order['save']}.chain.npy", results["img"][..., ::-1])
    np.save(f"{order['save']}.label.npy", results["gt_seg_map"])


def main() -> None:
    """Answer the lines of data_pipeline.py."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    init_default_scope("mmseg")
    steps = published()
    for line in sys.stdin:
        order = json.loads(line)
        if "save" in order:
            forced(order)
            print(json.dumps("saved"), file=answers, flush=True)
            continue
        np.random.seed(order["seeds"][0])  # noqa: NPY002
        began = time.process_time()
        for files in order["files"]:
            run(steps, start(files["image"], files["train_ids"]))
        print(json.dumps(time.process_time() - began), file=answers, flush=True)


if __name__ == "__main__":
    main()
