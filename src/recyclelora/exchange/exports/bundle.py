"""What lies beside a traced segmenter: ``segmenter.json``, ``load.py`` and ``README.md``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from recyclelora.evaluation.load import AUTOCAST
from recyclelora.exchange.exports import loader
from recyclelora.exchange.exports.source import Source
from recyclelora.exchange.exports.texts import portable_readme
from recyclelora.exchange.exports.tracing import LEAST_PATCHES, Traced
from recyclelora.runs.directory import RECORD
from recyclelora.system.storage import write_json, write_text
from recyclelora.system.typed_json import read_object

SCORES, PROBABILITIES = "segmenter", "probabilities"
"""Names of the two programs, without suffix."""


def write_bundle(source: Source, traced: Traced, precision: str, folder: Path, program: str, package: str) -> None:
    """Write the three files; ``program`` is the file of the scores and ``package`` what opens it."""
    about = describe(source, traced, precision)
    write_json(folder / "segmenter.json", about)
    shutil.copyfile(loader.__file__, folder / "load.py")
    write_text(folder / "README.md", portable_readme(about, program, package))


def describe(source: Source, traced: Traced, precision: str) -> dict[str, Any]:
    """The content of ``segmenter.json``."""
    data, patch = source.run.config.data, source.adapted.patch_size
    autocast = AUTOCAST.get(read_object(source.run.run_dir / RECORD)["precision"])
    return source.about | {
        "backbone": source.backbone.name,
        "images": {
            "values": "RGB, 0 to 255, float32 (B, 3, H, W); normalised inside",
            "batch": traced.batch, "size": traced.size, "multiple": patch, "least": LEAST_PATCHES * patch,
            "mean": source.plain.mean.flatten().tolist(), "std": source.plain.std.flatten().tolist(),
        },
        "precision": precision,
        "autocast": None if autocast is None else str(autocast).removeprefix("torch."),
        "protocol": {name: getattr(data.protocol, name) for name in ("name", "mode", "window", "stride")},
        "classes": {name: getattr(data.classes, name) for name in ("names", "colours", "ignore_index")},
    }  # fmt: skip
