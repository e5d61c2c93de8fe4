"""Figure 10: bad configurations and broken data, each refused by name before anything is trained.

    python benchmarks/reliability/refusals.py --count 1000

60 mistakes are typed as commands in fresh processes: those of keys and values have to be refused without torch, those
of shapes and patterns on the meta device, before any download. `inspect_data` has to name the file of each of 24
defects. ``--count`` configurations are drawn by hypothesis from all keys and odd values: each is accepted or refused
in words.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import TINY, command, spawn, workspace
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from recyclelora.config.compose import ConfigError, home, register_schemas, typed
from recyclelora.reports.inspection.writing import inspect_pair
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter

sys.path.insert(0, str(home() / "tests"))
from conftest import compose_config, make_cityscapes, make_gta, save_palette, save_rgb

SCHEMA_SECONDS, SHAPE_SECONDS = 5.0, 20.0

# Arguments of train.py and a word that the refusal must hold.
SCHEMA = [
    ("adapter.main.rank=0", "adapter.main.rank=0"), ("adapter.main.rank=-3", "adapter.main.rank=-3"),
    ("adapter.main.rank=x", "adapter.main.rank"), ("adapter.main.rank=1.5", "adapter.main.rank"),
    ("adapter.main.rnak=3", "rank"), ("adapter.alpha=0", "adapter.alpha=0"), ("adapter.alpha=nan", "adapter.alpha"),
    ("adapter.alpha=-1", "adapter.alpha"), ("adapter.scale_rule=fixd", "did you mean fixed"),
    ("adapter.scale_rule=fixed", "adapter.scale"), ("adapter.main.init=rrqr_minr", "did you mean rrqr_minor"),
    ("adapter.targets=[]", "adapter.targets"), ("adapter.blocks=first", "adapter.blocks"),
    ("+adapter.rnk=3", "adapter.rnk"), ("+adapter._target_=os.system", "_target_"), ("adapter=lroa", "lora"),
    ("adapter.precision=float16", "adapter.precision"), ("adapter.pivoting=greddy", "did you mean greedy"),
    ("adapter.name=../up", "adapter.name"), ("backbone=dinov2_hueg", "available"),
    ("backbone.patch_size=0", "backbone.patch_size"), ("backbone.image_size=[100,100]", "backbone.image_size"),
    ("backbone.levels=[1,2]", "backbone.levels"), ("backbone.resampling=lanczos", "backbone.resampling"),
    ("backbone.model=hf-hub:someone/model", "backbone.model"), ("+backbone.modle=x", "did you mean model"),
    ("optimizer.lr=-1", "optimizer.lr"), ("optimizer.lr=nan", "optimizer.lr"), ("optimizer.lr=inf", "optimizer.lr"),
    ("optimizer.betas=[0.9]", "optimizer.betas"), ("optimizer.betas=[0.9,1.0]", "optimizer.betas"),
    ("optimizer.schedule=cosin", "did you mean cosine"), ("optimizer.weight_decay=-1", "optimizer.weight_decay"),
    ("trainer.max_steps=0", "trainer.max_steps"), ("trainer.batch_size=0", "trainer.batch_size"),
    ("trainer.precision=fp32", "32-true"), ("trainer.accelerator=tpu", "trainer.accelerator"),
    ("trainer.devices=0", "trainer.devices"), ("trainer.num_workers=-1", "trainer.num_workers"),
    ("trainer.ema=2", "trainer.ema"), ("trainer.grad_clip=0", "trainer.grad_clip"),
    ("trainer.stall_timeout=0", "trainer.stall_timeout"), ("data.sources=[]", "data.sources"),
    ("data.targets=[]", "data.targets"), ("data.augment.crop=[100,512]", "patch size"),
    ("data.protocol.stride=600", "stride"), ("data.classes.ignore_index=3", "ignore_index"),
    ("decoder.loss.importance=1.5", "decoder.loss.importance"), ("seed=-1", "seed=-1"), ("seed=x", "seed=x"),
    ("bogus=1", "bogus"), ("study=../up", "study"),
]  # fmt: skip
SHAPE = [
    (["adapter.main.rank=40"], "main.rank=40"), (["adapter.sub.rank=33"], "sub.rank=33"),
    (["adapter.targets=[attn_qkv]"], "attn_qkv"), (["adapter.blocks='9:'"], "blocks"),
    (["backbone.levels=[1,2,3,99]"], "levels"), (["backbone.model=vit_teeny"], "vit_teeny"),
    (["+backbone.model_args.colour=blue"], "colour"), (["backbone=dinov2_large", "adapter.main.rank=2000"], "2000"),
]  # fmt: skip


def measure(seed: int, count: int) -> dict[str, Any]:
    """All mistakes and defects, a few of them where ``count`` is below 1,000, and the drawn configurations."""
    rng = random.Random(seed)
    few = count < 1000
    schema = rng.sample(SCHEMA, 3) if few else SCHEMA
    shape = rng.sample(SHAPE, 1) if few else SHAPE
    with workspace() as folder:
        return {
            "keys_and_values": _commands([([a], w) for a, w in schema], folder, SCHEMA_SECONDS, without_torch=True),
            "shapes_and_patterns": _commands(shape, folder, SHAPE_SECONDS, without_torch=False),
            "data_defects": _defects(folder / "defects", few),
            "drawn_configurations": drawn(seed, count),
        }


# --- mistakes in a command ------------------------------------------------------------------------------------------

_WITNESS = """
import atexit, os, sys, time
begun = time.perf_counter()
atexit.register(lambda: print("WITNESS", "torch" in sys.modules, round(time.perf_counter() - begun, 2)))
sys.argv = ["train.py", *sys.argv[1:]]
from recyclelora.commands.train import main
main()
"""


def _commands(
    cases: Sequence[tuple[list[str], str]], folder: Path, seconds: float, *, without_torch: bool
) -> dict[str, Any]:
    """Type each as a command; on a machine without a network, so that a download would be noticed."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "HYDRA_FULL_ERROR": "0"}
    found: dict[str, Any] = {"cases": 0, "refused_by_name": 0, "with_torch": 0, "too_slow": 0, "longest_s": 0.0}
    wrong = {}
    for arguments, word in cases:
        tiny = [] if without_torch else [
            "backbone=vit_tiny_test", "decoder=linear", "data=streets", "tracking=none",
            f"output_dir={folder}", f"cache={folder / 'cache'}",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", _WITNESS, *tiny, *arguments], capture_output=True, text=True, env=environment,
            cwd=folder, check=False, timeout=300,
        )  # fmt: skip
        torch_there, took = done.stdout.split("WITNESS")[-1].split() if "WITNESS" in done.stdout else ("?", "inf")
        found["cases"] += 1
        found["longest_s"] = max(found["longest_s"], float(took))
        found["too_slow"] += float(took) > seconds
        found["with_torch"] += without_torch and torch_there != "False"
        named = done.returncode == 2 and word in done.stderr and "Traceback" not in done.stderr
        found["refused_by_name"] += named
        if not named:
            wrong[" ".join(arguments)] = (done.stderr.strip() or "silent").splitlines()[-1][:300]
    return found | {"what": wrong}


# --- broken data ----------------------------------------------------------------------------------------------------

SIZE = (96, 192)
IDS = np.full(SIZE, 7, np.uint8)
CITY = "cityscapes/{kind}/val/lindau/lindau_000001_000019_{end}.png"


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def _flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0xFF
    path.write_bytes(content)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


_RNG = np.random.default_rng(0)
_RGB = _RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
_G, _L = "gta/images/00003.png", "gta/labels/00003.png"
_CI, _CL = CITY.format(kind="leftImg8bit", end="leftImg8bit"), CITY.format(kind="gtFine", end="gtFine_labelIds")
DEFECTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "image cut in half": (_G, lambda p: _cut(p, 0.5)),
    "image cut by its last bytes": (_G, lambda p: _cut(p, 0.999)),
    "empty image": (_G, lambda p: p.write_bytes(b"")),
    "image with a flipped byte": (_G, lambda p: _flip(p, 0.5)),
    "text named as an image": (_G, lambda p: p.write_text("not an image")),
    "web page named as an image": (_G, lambda p: p.write_text("<html>404</html>")),
    "link to nothing": (_G, _link_to_nothing),
    "no mask": (_L, lambda p: p.unlink()),
    "mask cut in half": (_L, lambda p: _cut(p, 0.5)),
    "empty mask": (_L, lambda p: p.write_bytes(b"")),
    "mask with a flipped byte": (_L, lambda p: _flip(p, 0.6)),
    "16-bit mask": (_L, lambda p: _save(p, np.full(SIZE, 300, np.uint16))),
    "mask of colours": (_L, lambda p: _save(p, _RGB)),
    "mask with an alpha channel": (_L, lambda p: _save(p, np.dstack([_RGB, IDS]))),
    "mask of another image": (_L, lambda p: save_palette(p, np.full((40, 60), 7))),
    "transposed mask": (_L, lambda p: save_palette(p, IDS.T)),
    "unknown ids": (_L, lambda p: save_palette(p, np.full(SIZE, 99))),
    "one unknown pixel": (_L, lambda p: save_palette(p, np.where(np.arange(IDS.size).reshape(SIZE) == 5, 77, IDS))),
    "mask that is a JPEG": (_L, lambda p: Image.fromarray(IDS).save(p, format="JPEG")),
    "nothing labelled": (_L, lambda p: save_palette(p, np.zeros(SIZE))),
    "image smaller than the crop": (_G, lambda p: (save_rgb(p, _RGB[:32, :32]), save_palette(_mask(p), IDS[:32, :32]))),
    "target image cut": (_CI, lambda p: _cut(p, 0.5)),
    "target mask with unknown ids": (_CL, lambda p: save_rgb(p, np.full(SIZE, 200, np.uint8))),
    "a scored image is trained on": (_G, lambda p: shutil.copy(p.parents[2] / _CI, p)),
}  # fmt: skip


def _mask(image: Path) -> Path:
    return image.parents[1] / "labels" / image.name


def _defects(folder: Path, few: bool) -> dict[str, Any]:
    """One defect at a time; its file has to be in the report of the data check."""
    make_cityscapes(make_gta(folder / "whole/data", 6), 2)
    chosen = list(DEFECTS.items())[::8] if few else list(DEFECTS.items())
    found: dict[str, Any] = {"defects": 0, "named": 0}
    missed = []
    for number, (name, (relative, breaking)) in enumerate(chosen):
        place = folder / str(number)
        shutil.copytree(folder / "whole", place)
        breaking(place / "data" / relative)
        spawn(place / "log", _inspect, place).wait()
        report = place / "out/inspect/gta2city/report.json"
        found["defects"] += 1
        if report.exists() and Path(relative).name in _named(report):
            found["named"] += 1
        else:
            missed.append(name)
        shutil.rmtree(place)
    return found | {"missed": missed}


def _inspect(place: Path) -> None:
    config = compose_config(place, "data.augment.crop=[64,64]", "data.sources.0.split=all")
    inspect_pair(config.data, config.cache, place / "out", 0, Reporter(enabled=False), num_samples=0)


def _named(report: Path) -> set[str]:
    """Files that the report's defects name: their own, and of a leak the other one."""
    defects = json.loads(report.read_text())["defects"]
    return {Path(word).name for defect in defects for word in (defect["file"], *defect["detail"].split())}


# --- drawn configurations -------------------------------------------------------------------------------------------

VALUES = [
    "null", "0", "-1", "1", "3", "1e30", "-0.5", "nan", "inf", "true", "x", "''", "[]", "[1]", "[64,64]", "[x,null]",
    "{}", "{a: 1}", "[[1]]", "é", "'../..'", "'*'", "1e-30", "99999999999999999999", "'${seed}'", "'${oc.env:HOME}'",
    "'${nope}'", "???",
]  # fmt: skip


def keys(node: Any, path: str = "") -> list[str]:
    """Every key of a composed configuration."""
    found = [path] if path else []
    if isinstance(node, DictConfig):
        for key in node:
            found += keys(node._get_node(key), f"{path}.{key}" if path else str(key))
    return found


def drawn(seed: int, count: int) -> dict[str, Any]:
    """Compose and check ``count`` drawn configurations; whatever is no refusal in words is a raw traceback."""
    register_schemas()
    found = {"drawn": 0, "accepted": 0, "refused": 0, "raw": 0}
    raw: dict[str, str] = {}
    with initialize_config_dir(str(home() / "conf")):
        base = compose("train", TINY)
        names = keys(base)

        @hypothesis_seed(seed)
        @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(VALUES)), min_size=1, max_size=3))
        def draw(pairs: list[tuple[str, str]]) -> None:
            found["drawn"] += 1
            node = base.copy()
            try:
                for key, value in pairs:
                    OmegaConf.update(node, key, OmegaConf.create(f"v: {value}")._get_node("v"), merge=False)
                typed(node)
                found["accepted"] += 1
            except (ConfigError, UserError, HydraException, OmegaConfBaseException):
                found["refused"] += 1
            except Exception as error:  # a raw traceback is what is looked for
                found["raw"] += 1
                raw[f"{type(error).__name__}: {str(error)[:100]}"] = repr(pairs)

        draw()
    return found | {"what": raw}


if __name__ == "__main__":
    command(measure, "refusals", 1000)
