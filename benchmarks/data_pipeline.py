"""Image and label files -> augmented 512 crop: Pillow, mmsegmentation and this project. Writes data_pipeline.json.

    .venv/bin/python benchmarks/data_pipeline.py            # installs mmsegmentation into a temporary environment
    .venv/bin/python benchmarks/data_pipeline.py --small --mmseg-python /tmp/mmseg/bin/python

Every way is one process with one thread, runs the published chain with draws of its own, and ends at tensors. The ways
take turns; images per second are per second of CPU time. Files: `png` is like GTAV (1914x1052 PNG, palette label) and
`jpeg` like BDD100K (1280x720 JPEG, grey label): rendered streets, enlarged, with noise that gives them about the bytes
per image of those sets. mmsegmentation reads the labels already converted to train ids, since it has no table for them.

Equality: the same short edge, window, flip and photometric values in mmsegmentation and here. `chain` is the finished
crop, `geometry` the crop without photometric distortion, which amplifies differences, and `photometric` this project's
distortion of mmsegmentation's own crop.
"""

from __future__ import annotations

import argparse
import copy
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
import PIL
import torch
from PIL import Image, ImageEnhance

from recyclelora.data.datasets import FolderDataset, Item
from recyclelora.data.decode_cache import CachedDataset, DecodeCache
from recyclelora.data.labels import CITYSCAPES_IDS, CITYSCAPES_KNOWN, identity_table, lookup_table
from recyclelora.data.loaders import collate
from recyclelora.data.streets import render
from recyclelora.data.transforms import Augmentation, resized_shape

EDGES = (256, 307, 358, 409, 460, 512, 563, 614, 665, 716, 768, 819, 870, 921, 972, 1024)
CROP = 512
KINDS = {"png": (1052, 1914), "jpeg": (720, 1280)}
MMSEG = ("mmsegmentation==1.2.2", "mmcv-lite==2.2.0", "mmengine==0.10.7", "addict", "yapf", "platformdirs", "termcolor")
WAYS = ("pillow", "mmsegmentation", "project", "project, decode cache")

Sample = tuple[torch.Tensor, torch.Tensor]


# --- files ------------------------------------------------------------------------------------------------------------


def make_files(folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Write the files of both kinds; mean bytes of image and label."""
    palette = np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes()
    stored = np.full(256, 0, np.uint8)
    for label_id, train_id in CITYSCAPES_IDS.items():
        stored[train_id] = label_id
    for index in range(count):
        image, label = render("source", "train", index)
        for kind, (height, width) in KINDS.items():
            paths = paths_of(folder, kind, index)
            for path in paths.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng((index, height))
            sigma = 7.0 if kind == "png" else 3.0
            large = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
            grain = cv2.GaussianBlur(rng.normal(0, sigma, large.shape).astype(np.float32), (0, 0), 0.7)
            picture = Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8))
            ids = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
            Image.fromarray(ids).save(paths["train_ids"])
            if kind == "png":
                picture.save(paths["image"])
                mask = Image.fromarray(stored[ids], mode="P")
                mask.putpalette(palette)
                mask.save(paths["label"])
            else:
                picture.save(paths["image"], quality=85)
    return {
        kind: {
            part: statistics.mean(paths_of(folder, kind, i)[part].stat().st_size for i in range(count))
            for part in ("image", "label")
        }
        for kind in KINDS
    }


def paths_of(folder: Path, kind: str, index: int) -> dict[str, Path]:
    """Files of one sample; ``label`` is what this project reads, ``train_ids`` what mmsegmentation does."""
    suffix = "png" if kind == "png" else "jpg"
    train_ids = folder / kind / "train_ids" / f"{index:05d}.png"
    label = folder / kind / "labels" / f"{index:05d}.png" if kind == "png" else train_ids
    return {"image": folder / kind / "images" / f"{index:05d}.{suffix}", "label": label, "train_ids": train_ids}


def dataset(folder: Path, kind: str, count: int) -> FolderDataset:
    paths = [paths_of(folder, kind, index) for index in range(count)]
    table = lookup_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN) if kind == "png" else identity_table(19)
    return FolderDataset(kind, folder, tuple(Item(p["image"], p["label"]) for p in paths), table)


# --- the ways ---------------------------------------------------------------------------------------------------------


def project(folder: Path, kind: str, count: int, cache: bool) -> Callable[[int, int], Sample]:
    augment, files = Augmentation((CROP, CROP), EDGES), dataset(folder, kind, count)
    source = CachedDataset(files, DecodeCache(folder / "decoded", 10**11)) if cache else files

    def sample(index: int, seed: int) -> Sample:
        read = source.load(index)
        images, labels = collate([augment(read.image, read.label, np.random.default_rng(seed))])
        return images[0], labels[0]

    return sample


def pillow(folder: Path, kind: str, count: int) -> Callable[[int, int], Sample]:
    table = dataset(folder, kind, 1).table

    def sample(index: int, seed: int) -> Sample:
        rng, paths = np.random.default_rng(seed), paths_of(folder, kind, index)
        image = Image.open(paths["image"]).convert("RGB")
        label = Image.fromarray(table[np.asarray(Image.open(paths["label"]))])
        height, width = resized_shape((image.height, image.width), int(rng.choice(EDGES)), 2048)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        ids = np.asarray(label.resize((width, height), Image.Resampling.NEAREST))
        for _ in range(11):
            top, left = (int(rng.integers(0, max(side - CROP, 0) + 1)) for side in (height, width))
            cut = ids[top : top + CROP, left : left + CROP]
            classes, pixels = np.unique(cut, return_counts=True)
            pixels = pixels[classes != 255]
            if len(pixels) > 1 and pixels.max() / pixels.sum() < 0.75:
                break
        image = image.crop((left, top, left + cut.shape[1], top + cut.shape[0]))
        padded = Image.new("RGB", (CROP, CROP))
        padded.paste(image)
        mask = np.full((CROP, CROP), 255, np.uint8)
        mask[: cut.shape[0], : cut.shape[1]] = cut
        if rng.random() < 0.5:
            padded, mask = padded.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask[:, ::-1]
        pixels = np.asarray(pillow_colours(padded, rng)).transpose(2, 0, 1)
        return torch.from_numpy(pixels.copy()), torch.from_numpy(mask.copy())

    return sample


def pillow_colours(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The four photometric steps with Pillow's own operations."""
    first = rng.random() < 0.5
    if rng.random() < 0.5:
        image = image.point([min(max(v + d, 0), 255) for d in [rng.uniform(-32, 32)] for v in range(256)] * 3)
    contrast = rng.random() < 0.5
    if contrast and first:
        image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        image = ImageEnhance.Color(image).enhance(rng.uniform(0.5, 1.5))
    if rng.random() < 0.5:
        hue, saturation, value = image.convert("HSV").split()
        turn = int(rng.integers(-25, 26))  # of 256
        hue = hue.point([(v + turn) % 256 for v in range(256)])
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if contrast and not first:
        image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.5, 1.5))
    return image


# --- one process for each way -----------------------------------------------------------------------------------------


def serve(way: str, folder: Path, count: int) -> None:
    """Answer lines {"kind", "seeds"} with the CPU seconds that so many samples took."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    make = {
        "pillow": pillow,
        "project": lambda *a: project(*a, cache=False),
        "project, decode cache": lambda *a: project(*a, cache=True),
    }[way]
    ways = {kind: make(folder, kind, count) for kind in KINDS}
    for line in sys.stdin:
        order = json.loads(line)
        began = time.process_time()
        for seed in order["seeds"]:
            ways[order["kind"]](seed % count, seed)
        print(json.dumps(time.process_time() - began), flush=True)


class Worker:
    """A way in a process of its own."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"), text=True
        )

    def ask(self, **order: object) -> object:
        """Send one line, get one back; RuntimeError with the last words of a process that has ended."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(self.log.read_text().strip().splitlines()[-1])
        return json.loads(answer)


def mmseg_python(given: Path | None, folder: Path) -> Path:
    """A Python that has mmsegmentation: the one given, or a new environment over this one's torch, numpy and OpenCV."""
    if given:
        return given
    subprocess.run([sys.executable, "-m", "venv", str(folder / "mmseg")], check=True)
    python = folder / "mmseg" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    (Path(site) / "host.pth").write_text(str(Path(torch.__file__).parents[1]) + "\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *MMSEG, "ftfy"], check=True)
    return python


# --- equality ---------------------------------------------------------------------------------------------------------


class Recorder:
    """A generator that remembers what it drew."""

    def __init__(self, seed: int) -> None:
        self.rng, self.drawn = np.random.default_rng(seed), []

    def __getattr__(self, name: str) -> Callable[..., object]:
        def draw(*args: object, **kwargs: object) -> object:
            value = getattr(self.rng, name)(*args, **kwargs)
            self.drawn.append((name, np.asarray(value).tolist()))
            return value

        return draw


def parameters(drawn: list[tuple[str, object]]) -> dict[str, object]:
    """What the chain drew, in words; see Augmentation and Photometric for the order."""
    *windows, flip, coins, delta, factor, colour, turn = [value for _, value in drawn[1:]]
    bright, first, contrasted, saturated, turned = (coins[0] < 0.5, coins[1] < 0.5, *(c < 0.5 for c in coins[2:]))
    return {
        "short_edge": drawn[0][1], "top": windows[-2], "left": windows[-1], "flip": flip < 0.5,
        "brightness": delta if bright else None, "contrast_first": first, "contrast": factor if contrasted else None,
        "saturation": colour if saturated else None, "hue": turn if turned else None,
    }  # fmt: skip


def equality(folder: Path, count: int, samples: int, mmseg: Worker) -> dict[str, object]:
    """Differences in grey levels between mmsegmentation's crops and this project's; short edges that fill the crop."""
    found: dict[str, object] = {}
    augment = Augmentation((CROP, CROP), tuple(edge for edge in EDGES if edge >= CROP))
    for kind in KINDS:
        files, differences, labels = dataset(folder, kind, count), {"geometry": [], "chain": [], "photometric": []}, []
        for seed in range(samples):
            sample, recorder = files.load(seed % count), Recorder(seed)
            image, label = augment.geometry(sample.image, sample.label, recorder)
            replay = copy.deepcopy(recorder.rng)
            done = augment.colours(image, recorder)
            paths = paths_of(folder, kind, seed % count)
            target = folder / "equal"
            mmseg.ask(
                image=str(paths["image"]), label=str(paths["train_ids"]), save=str(target),
                parameters=parameters(recorder.drawn),
            )  # fmt: skip
            theirs = {name: np.load(f"{target}.{name}.npy") for name in ("geometry", "chain", "label")}
            differences["geometry"].append(np.abs(theirs["geometry"].astype(int) - image))
            differences["chain"].append(np.abs(theirs["chain"].astype(int) - done))
            again = augment.colours(np.ascontiguousarray(theirs["geometry"]), replay)
            differences["photometric"].append(np.abs(theirs["chain"].astype(int) - again))
            labels.append(bool((theirs["label"] == label).all()))
        found[kind] = {"samples": samples, "labels_equal": all(labels)} | {
            name: {
                "max": int(max(d.max() for d in values)),
                "mean": round(float(np.mean([d.mean() for d in values])), 4),
                "share_of_equal_pixels": round(float(np.mean([(d.max(-1) == 0).mean() for d in values])), 4),
            }
            for name, values in differences.items()
        }
    return found


def main() -> None:
    """Time, compare, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24, help="files of each kind")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--samples", type=int, default=24, help="samples a round")
    parser.add_argument("--small", action="store_true", help="a check in seconds; its figures mean nothing")
    parser.add_argument("--mmseg-python", type=Path, help="a Python that has mmsegmentation and mmcv-lite")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.small:
        options.images, options.rounds, options.samples = 3, 3, 4
    if options.serve:
        serve(options.serve, options.folder, options.images)
        return
    with tempfile.TemporaryDirectory() as name:
        result = measured(Path(name), options)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("images_per_second", "ratio_to_pillow", "equality")}, indent=2))


def measured(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """All figures, with the files in ``folder``."""
    sizes = make_files(folder, options.images)
    own = [sys.executable, __file__, "--images", str(options.images), "--folder", str(folder), "--serve"]
    workers = {way: Worker([*own, way], folder / f"{i}.log") for i, way in enumerate(WAYS) if way != "mmsegmentation"}
    failure: str | None = None
    try:
        python = mmseg_python(options.mmseg_python, folder)
        script = Path(__file__).with_name("mmseg_pipeline.py")
        workers["mmsegmentation"] = Worker([str(python), str(script)], folder / "mmseg.log")
        equal: object = equality(folder, options.images, 2 * options.samples, workers["mmsegmentation"])
    except (RuntimeError, subprocess.CalledProcessError, OSError) as error:
        failure, equal = str(error), None
        workers.pop("mmsegmentation", None)
    seconds = {kind: {way: [] for way in WAYS if way in workers} for kind in KINDS}
    for turn in range(-1, options.rounds):  # the first warms up: imports, page cache, decode cache
        seeds = [(max(turn, 0) * options.samples + i) for i in range(options.samples)]
        for kind in KINDS:
            for way in seconds[kind]:
                files = [{k: str(v) for k, v in paths_of(folder, kind, s % options.images).items()} for s in seeds]
                warm = list(range(options.images)) if turn < 0 else []
                files = files if way == "mmsegmentation" else []
                spent = workers[way].ask(kind=kind, seeds=[*warm, *seeds] if not files else seeds, files=files)
                if turn >= 0:
                    seconds[kind][way].append(spent)
    speed = {
        kind: {way: round(options.samples / statistics.median(values), 1) for way, values in ways.items()}
        for kind, ways in seconds.items()
    }
    for worker in workers.values():
        worker.process.terminate()
        worker.process.wait()
    return {
        "what": __doc__,
        "machine": machine(),
        "rounds": options.rounds,
        "samples_a_round": options.samples,
        "bytes_per_file": sizes,
        "images_per_second": speed,
        "ratio_to_pillow": {k: {w: round(v / ways["pillow"], 2) for w, v in ways.items()} for k, ways in speed.items()},
        "equality": equal,
        "mmsegmentation_failed": failure,
        "cpu_seconds_of_each_round": seconds,
    }


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(),
        "python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__,
        "pillow": PIL.__version__, "threads_of_each_process": 1, "load_at_start": os.getloadavg()[0],
    }  # fmt: skip


if __name__ == "__main__":
    main()
