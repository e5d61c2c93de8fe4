"""Confusion matrix of 1024x2048 images, 19 classes: torchmetrics, the histc way, this project. Writes confusion.json.

    .venv/bin/python benchmarks/confusion.py              # fetches torchmetrics into a temporary folder
    .venv/bin/python benchmarks/confusion.py --small

One thread, ways in turns, images per second of CPU time. `histc` counts intersections and areas with three calls of
torch.histc, as mmsegmentation's metric does; it gives IoUs but no confusion matrix. Ground truth: rendered streets,
enlarged, 255 where nothing is labelled; prediction: the same with borders moved at random. `noise` is a prediction
without any structure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import cv2
import numpy as np
import torch

from recyclelora.data.streets import render
from recyclelora.evaluation.metrics import ConfusionMatrix

CLASSES, IGNORE, SIZE = 19, 255, (1024, 2048)
Way = Callable[[np.ndarray, np.ndarray], np.ndarray]


def masks(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ground truth, a prediction with moved borders, and noise."""
    rng = np.random.default_rng(index)
    truth = cv2.resize(render("source", "train", index)[1], SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    moves = [cv2.GaussianBlur(rng.normal(0, 60, SIZE).astype(np.float32), (0, 0), 6) for _ in range(2)]
    moved = cv2.remap(truth, columns + moves[0], rows + moves[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    moved[moved == IGNORE] = 0
    return truth, moved, rng.integers(0, CLASSES, SIZE).astype(np.uint8)


def by_project(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return ConfusionMatrix(CLASSES).update(truth, prediction)


def by_bincount(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """A 16-bit key; ignored pixels fall into bins of their own."""
    key = np.multiply(truth, CLASSES, dtype=np.int16) + prediction
    return np.bincount(key.ravel(), minlength=256 * CLASSES)[: CLASSES**2].reshape(CLASSES, CLASSES)


def by_histc(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Intersection and both areas of every class, (3, classes)."""
    labelled = torch.from_numpy(truth != IGNORE)
    label, predicted = (torch.from_numpy(ids)[labelled].float() for ids in (truth, prediction))
    areas = (predicted[predicted == label], label, predicted)
    return torch.stack([torch.histc(a, CLASSES, 0, CLASSES - 1) for a in areas]).numpy().astype(np.int64)


def by_torchmetrics() -> Way:
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORE)

    def count(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        metric.reset()
        metric.update(torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(truth.astype(np.int64)))
        return metric.compute().numpy()

    return count


def main() -> None:
    """Time, compare, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--small", action="store_true", help="a check in seconds; its figures mean nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.small:
        options.images, options.rounds = 2, 2
    torch.set_num_threads(1)
    ways: dict[str, Way] = {"project": by_project, "int16 key, numpy bincount": by_bincount, "histc": by_histc}
    with tempfile.TemporaryDirectory() as folder:
        failure = None
        try:
            install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, "torchmetrics==1.8.2"]
            subprocess.run([sys.executable, *install], check=True)
            sys.path.append(folder)
            ways["torchmetrics"] = by_torchmetrics()
        except (subprocess.CalledProcessError, ImportError) as error:
            failure = str(error)
        result = measured(ways, options) | {"torchmetrics_failed": failure}
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("images_per_second", "equal")}, indent=2))


def measured(ways: dict[str, Way], options: argparse.Namespace) -> dict[str, object]:
    """Images per second of every way, after checking that all count the same."""
    images = [masks(index) for index in range(options.images)]
    equal = True
    for truth, moved, noise in images:
        for prediction in (moved, noise):
            expected = by_project(truth, prediction)
            areas = np.stack([np.diag(expected), expected.sum(1), expected.sum(0)])
            for name, way in ways.items():
                equal &= np.array_equal(way(truth, prediction), areas if name == "histc" else expected)
    kinds = {"moved borders": 1, "noise": 2}
    seconds = {kind: {name: [] for name in ways} for kind in kinds}
    for _ in range(options.rounds):
        for kind, column in kinds.items():
            for name, way in ways.items():
                began = time.process_time()
                for sample in images:
                    way(sample[0], sample[column])
                seconds[kind][name].append((time.process_time() - began) / len(images))
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "what": __doc__,
        "machine": {
            "cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "torch": torch.__version__,
            "numpy": np.__version__, "opencv": cv2.__version__, "load_at_start": os.getloadavg()[0],
        },
        "images": options.images,
        "rounds": options.rounds,
        "images_per_second": {
            kind: {name: round(1 / statistics.median(values), 1) for name, values in of.items()}
            for kind, of in seconds.items()
        },
        "equal": equal,
    }  # fmt: skip


if __name__ == "__main__":
    main()
