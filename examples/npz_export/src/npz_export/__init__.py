"""``recyclelora export run=<run> format=npz``: the backbone with its adapters merged, as NumPy arrays by name."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch

from recyclelora.config.commands import ExportConfig
from recyclelora.exchange.exports.agreement import FLOAT32, ExportReport, compare_features, probe
from recyclelora.exchange.exports.source import Source

README = """The backbone {name} of the run {run}, its adapters merged: `numpy.load("backbone.npz")` maps names of timm's
`{model}` to float32 arrays. Images (B, 3, H, W) go in as (value - {mean}) / {std}, for values from 0 to 255.
"""


def write(source: Source, folder: Path, config: ExportConfig) -> ExportReport:
    """Write the arrays, read them again, and compare what a backbone with them computes with the adapted model."""
    arrays = {name: tensor.numpy() for name, tensor in source.merged.model.state_dict().items()}
    np.savez(folder / "backbone.npz", **arrays)
    about = source.backbone
    words = {"name": about.name, "run": source.run.run_dir.name, "model": about.model}
    (folder / "README.md").write_text(README.format(**words, mean=about.mean, std=about.std))

    again = copy.deepcopy(source.merged)
    with np.load(folder / "backbone.npz") as stored:
        again.model.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
    images = (probe(2, source.image_size) - source.plain.mean) / source.plain.std
    with torch.inference_mode():
        check = compare_features(images, source.adapted(images), again(images))
    return ExportReport([check], FLOAT32, {"arrays": len(arrays)})
