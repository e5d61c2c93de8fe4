"""Segment images of any size with this export, as the run it came from is scored.

Needs numpy, and torch for ``segmenter.pt2`` or onnxruntime for ``segmenter.onnx``; nothing else. ``load.py`` of every
such export is a copy of this file.

    from load import Segmenter, read_image

    segmenter = Segmenter()
    ids, confidence = segmenter.predict(read_image("photo.jpg"))  # uint8 RGB (H, W, 3); reading a file needs Pillow
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Program = Callable[[Array], Array]

WINDOWS_AT_ONCE = 4


class Segmenter:
    """Backbone, decoder, preprocessing, classes and test protocol of one run.

    Args:
        folder: the export; by default the one this file lies in.
        device: of torch, such as ``cuda``; of onnxruntime ``cpu``, ``cuda`` or ``cuda:1``.
        autocast: compute ``segmenter.pt2`` in the mixed precision in which the run was scored, if it was.
        providers: of onnxruntime, instead of a device: names, or pairs of a name and its options.
        batch: windows of an image that are looked at together.

    Raises:
        ValueError: this onnxruntime does not have a provider that is asked for.

    Attributes:
        classes: names by class id.
        ignore_index: the id of labels that do not count; it is never predicted.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        device: str = "cpu",
        autocast: bool = True,
        providers: Sequence[Any] | None = None,
        batch: int = WINDOWS_AT_ONCE,
    ) -> None:
        self.batch = batch
        self.folder = Path(folder) if folder is not None else Path(__file__).resolve().parent
        self.about = json.loads((self.folder / "segmenter.json").read_text(encoding="utf-8"))
        self.classes: list[str] = self.about["classes"]["names"]
        self.ignore_index: int = self.about["classes"]["ignore_index"]
        self._mean = np.array(self.about["images"]["mean"], np.float32).reshape(1, 3, 1, 1)
        precision = self.about["autocast"] if autocast else None
        self._scores = self._open("segmenter", device, precision, providers)
        self._probabilities = self._open("probabilities", device, None, providers)

    def predict(self, image: Array) -> tuple[Array, Array]:
        """Class ids, uint8 (H, W), and their probabilities, float32 (H, W), of a uint8 RGB image (H, W, 3)."""
        probabilities = self._probabilities(self.scores(image))[0]
        return probabilities.argmax(0).astype(np.uint8), probabilities.max(0)

    def scores(self, image: Array) -> Array:
        """Scores (1, num_classes, H, W) of a uint8 RGB image (H, W, 3) under the run's test protocol."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected a uint8 RGB image (H, W, 3), got {image.dtype} {image.shape}")
        batch = image.transpose(2, 0, 1)[None].astype(np.float32)
        protocol = self.about["protocol"]
        if protocol["mode"] == "slide":
            return self._sliding(batch, protocol["window"], protocol["stride"])
        return self.batch_scores(batch)

    def batch_scores(self, crops: Array) -> Array:
        """Scores (B, num_classes, H, W) of float32 images (B, 3, H, W) with values 0 to 255, each looked at as a whole.

        They are padded with the mean colour, zero when normalised, to a size that the program takes.
        """
        height, width = crops.shape[-2:]
        rows, columns = self._size(height, width)
        padded = np.repeat(np.broadcast_to(self._mean, (1, 3, rows, columns)), len(crops), axis=0)
        padded[..., :height, :width] = crops
        one_by_one = self.about["images"]["batch"] == 1
        parts = np.split(padded, len(padded)) if one_by_one else [padded]
        return np.concatenate([self._scores(part) for part in parts])[..., :height, :width]

    def colours(self, ids: Array) -> Array:
        """Class ids (H, W) as RGB (H, W, 3)."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.classes)] = self.about["classes"]["colours"]
        return table[ids]

    def _sliding(self, batch: Array, window: int, stride: int) -> Array:
        """Scores averaged over overlapping windows."""
        height, width = batch.shape[-2:]
        boxes = list(windows((height, width), window, stride))
        total = np.zeros((1, len(self.classes), height, width), np.float32)
        counts = np.zeros((1, 1, height, width), np.float32)
        for first in range(0, len(boxes), self.batch):
            part = boxes[first : first + self.batch]
            scores = self.batch_scores(np.concatenate([batch[..., y, x] for y, x in part]))
            for index, (y, x) in enumerate(part):
                total[..., y, x] += scores[index]
                counts[..., y, x] += 1
        return total / counts

    def _size(self, height: int, width: int) -> tuple[int, int]:
        allowed = self.about["images"]
        if allowed["size"] is None:
            multiple, least = allowed["multiple"], allowed["least"]
            rows, columns = (max(-(-side // multiple) * multiple, least) for side in (height, width))
            return rows, columns
        rows, columns = allowed["size"]
        if height > rows or width > columns:
            raise ValueError(f"this export takes images up to {rows}x{columns} pixels, not {height}x{width}")
        return rows, columns

    def _open(self, name: str, device: str, autocast: str | None, providers: Sequence[Any] | None) -> Program:
        if (self.folder / f"{name}.onnx").is_file():
            return _onnx_program(self.folder / f"{name}.onnx", providers or providers_of(device))
        return _torch_program(self.folder / f"{name}.pt2", device, autocast)


def read_image(path: str | Path) -> Array:
    """An image file as uint8 RGB (H, W, 3), turned as its EXIF orientation asks for: as ``predict.py`` reads it."""
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        return np.array(ImageOps.exif_transpose(picture).convert("RGB"))


def windows(size: tuple[int, int], window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Windows that cover ``size`` (H, W); the last of a row or column is moved back inside the image."""
    for y in _starts(size[0], window, stride):
        for x in _starts(size[1], window, stride):
            yield slice(y, min(y + window, size[0])), slice(x, min(x + window, size[1]))


def _starts(length: int, window: int, stride: int) -> list[int]:
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride, length - window), 0) for index in range(count)]


def _torch_program(path: Path, device: str, autocast: str | None) -> Program:
    """A saved torch program; ``autocast`` names the precision in which the run is scored."""
    import torch
    from torch.export.passes import move_to_device_pass

    program = torch.export.load(path)
    if device != "cpu":
        program = move_to_device_pass(program, device)
    module = program.module()
    kind = torch.device(device).type
    precision = getattr(torch, autocast) if autocast else None

    def run(batch: Array) -> Array:
        with torch.inference_mode(), torch.autocast(kind, precision, enabled=precision is not None):
            result: Array = module(torch.from_numpy(batch).to(device)).float().cpu().numpy()
        return result

    return run


def providers_of(device: str) -> list[Any]:
    """Onnxruntime's providers for a device of torch."""
    kind, _, number = device.partition(":")
    cpu = "CPUExecutionProvider"
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r}: onnxruntime has cpu and cuda; name others as providers")
    return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), cpu] if kind == "cuda" else [cpu]


def _onnx_program(path: Path, providers: Sequence[Any]) -> Program:
    """A graph on the first of ``providers``; onnxruntime itself would go on without one that it cannot start."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it raises what it would print
    names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    missing = [name for name in names if name not in onnxruntime.get_available_providers()]
    if missing:
        raise ValueError(f"{missing[0]}: this onnxruntime has {', '.join(onnxruntime.get_available_providers())} only")
    session = onnxruntime.InferenceSession(path, options, providers=list(providers))
    if names[0] not in session.get_providers():
        raise ValueError(f"{names[0]}: onnxruntime could not start it; it would run on {session.get_providers()[0]}")
    name = session.get_inputs()[0].name

    def run(batch: Array) -> Array:
        result: Array = session.run(None, {name: batch})[0]
        return result

    return run
