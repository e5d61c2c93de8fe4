"""Images a second in an evaluation with sliding windows: 1024 x 2048, DINOv2-L, linear decoder and Mask2Former.

Windows of 512 every 341 pixels, as published, through the project's own evaluator: copies, normalisation, the model,
the argmax and the confusion matrix. Random weights; images in memory, so that no disk is measured.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial

import numpy as np
import torch
from common import Figures, device, options, wait
from train_step import SIZES, build

from recyclelora.data.datasets import Sample
from recyclelora.data.protocol import ProtocolConfig
from recyclelora.evaluation.evaluator import Evaluator
from recyclelora.models.decoders.config import LinearDecoderConfig
from recyclelora.models.segmenter import Segmenter

CLASSES = 19


class Noise:
    """``count`` images of noise with labels, the same at every call."""

    labelled, name, label = True, "noise", "noise"

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        rng = np.random.default_rng(0)
        self.count = count
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        self.sample = Sample(image, rng.integers(0, CLASSES, size, dtype=np.uint8), "noise")

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> Sample:
        """The one that there is."""
        return self.sample


def rate(segmenter: Segmenter, size: tuple[int, int], window: int, at_once: int, count: int, where: str) -> float:
    """Images a second, after two to warm up."""
    low = partial(torch.autocast, "cuda", torch.bfloat16) if where == "cuda" else contextlib.nullcontext
    protocol = ProtocolConfig(name="noise", window=window, stride=window * 2 // 3)
    evaluator = Evaluator(
        protocol, CLASSES, 255, torch.device(where), low, lambda tensor: tensor, window_batch=at_once, num_workers=0,
    )  # fmt: skip
    evaluator(segmenter, Noise(2, size))
    wait()
    began = time.perf_counter()
    evaluator(segmenter, Noise(count, size))
    wait()
    return round(count / (time.perf_counter() - began), 2)


def main() -> None:
    given = options(__doc__)
    where = device(given.dry)
    name, crop, _ = SIZES["tiny" if given.dry else "full"]
    size, window, count = ((128, 192), 64, 2) if given.dry else ((1024, 2048), 512, 12)
    figures = Figures(given.output, model=name, size=size, window=window)
    masks = build(name, (window, window) if given.dry else crop, where, published=False)
    linear = Segmenter(
        masks.backbone, LinearDecoderConfig().build([masks.backbone.embed_dim] * 4, CLASSES), mean=(0.5,) * 3,
        std=(0.2,) * 3, ignore_index=255,
    ).to(where)  # fmt: skip
    for decoder, segmenter in (("linear", linear), ("mask2former", masks)):
        for at_once in (1, 4, 16):
            figures.attempt(
                f"{decoder}, {at_once} windows at once: images per second",
                partial(rate, segmenter, size, window, at_once, count, where),
            )
    figures.finish()


if __name__ == "__main__":
    main()
