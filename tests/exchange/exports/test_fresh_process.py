"""What README.md of an export says, done in a process that knows neither this project nor Hydra."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import recyclelora
from recyclelora.exchange.exports import peft as peft_export
from recyclelora.models.backbones.layouts import own_layout
from recyclelora.models.backbones.weights import find_weights, read_weights

from .conftest import PLAIN, asked, moved_source

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("recyclelora", "hydra", "omegaconf"):
            raise ModuleNotFoundError(f"blocked: {name}")

sys.meta_path.insert(0, Blocked())
try:
    import recyclelora
except ModuleNotFoundError:
    sys.path.insert(0, ".")
else:
    raise SystemExit("recyclelora can be imported")

import numpy
given = list(numpy.load("given.npz").values())
results = []
"""
SAVE = "\nnumpy.savez('results.npz', *results)\n"
SIZES = [(96, 192), (64, 64), (71, 133), (40, 90), (20, 20)]
"""Larger than the protocol's window of 64, as large, odd, and smaller."""


def snippet(folder: Path, indent: str = "") -> str:
    """The Python of an export's README.md."""
    text = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    return "".join(f"{indent}{line}\n" for line in text.splitlines())


def results_of(folder: Path, code: str, given: list[np.ndarray]) -> list[np.ndarray]:
    """Run code in the folder of an export; it finds ``given`` and leaves arrays in ``results``."""
    np.savez(folder / "given.npz", *given)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", BLOCKED + code + SAVE]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return list(np.load(folder / "results.npz").values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm", "peft"])
def test_backbones(finished: Path, exported: Callable[[str], Path], name: str):
    folder, backbone = exported(name), recyclelora.load(finished).segmenter.backbone
    images = torch.randn(2, 3, 48, 80)
    again = {
        "timm": "import load; maps += load.features(load.load(), images)",
        "peft": "maps += features(backbone, images)",
    }
    code = "import torch; images = torch.from_numpy(given[0])\n" + snippet(folder) + again[name]
    results = results_of(folder, code + "\nresults += [m.detach().numpy() for m in maps]", [images.numpy()])
    with torch.inference_mode():
        expected = backbone(images)
    for a, b in zip([*expected, *expected], results, strict=True):
        np.testing.assert_allclose(a.numpy(), b, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "unneeded"), [("segmenter", "timm"), ("onnx", "torch")])
def test_segmenters(finished: Path, exported: Callable[[str], Path], name: str, unneeded: str):
    folder, model = exported(name), recyclelora.load(finished)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]
    photo = "from PIL import Image\nfor image in given:\n    Image.fromarray(image).save('photo.jpg', 'PNG')\n"
    code = photo + snippet(folder, "    ") + "    results += [ids, confidence, picture]\n"
    results = results_of(folder, code + f"assert {unneeded!r} not in sys.modules", images)
    for image, ids, confidence, picture in zip(images, results[::3], results[1::3], results[2::3], strict=True):
        expected = model.predict(image)
        np.testing.assert_array_equal(ids, expected.ids)
        np.testing.assert_allclose(confidence, expected.confidence, atol=1e-5)
        assert (picture[0, 0] == model.config.data.classes.colours[ids[0, 0]]).all()


@pytest.mark.weights
def test_peft_on_real_weights_and_its_refusal_of_others(tmp_path: Path):
    source = moved_source(tmp_path, *PLAIN, "adapter=recyclelora", "backbone=dinov2_small")
    outcome = peft_export.write(source, tmp_path, asked())
    outcome.verify()
    assert set(outcome.details["ranks"].values()) == {72}
    pretrained = own_layout(read_weights(find_weights("dinov2_small", None, None)))
    save_file(pretrained, tmp_path / "original.safetensors")
    pretrained["blocks.3.mlp.fc1.weight"] *= 1.01
    save_file(pretrained, tmp_path / "other.safetensors")
    images = torch.randn(1, 3, *source.image_size)
    code = "import torch; images = torch.from_numpy(given[0])\n"
    code += snippet(tmp_path).replace("load()", "load('original.safetensors')")
    code += "results += [m.detach().numpy() for m in maps]\n"
    code += "try: load('other.safetensors')\nexcept ValueError as error: print(error, file=open('refusal', 'w'))"
    results = results_of(tmp_path, code, [images.numpy()])
    with torch.inference_mode():
        expected = source.adapted(images)
    for a, b in zip(expected, results, strict=True):
        np.testing.assert_allclose(a.numpy(), b, atol=1e-4, rtol=1e-4)
    assert "blocks.3.mlp.fc1 is not the weight that the adapter was trained on" in (tmp_path / "refusal").read_text()
