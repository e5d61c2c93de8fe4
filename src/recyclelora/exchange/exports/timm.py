"""``format=timm``: the adapted backbone as safetensors and config.json that ``timm.create_model`` loads.

The backbone of a run is cut behind the last level that is read. The export is whole again: blocks behind that level,
final norm and pooling are put back as they were pretrained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from recyclelora.config.commands import ExportConfig
from recyclelora.exchange.exports import texts
from recyclelora.exchange.exports.agreement import FLOAT32, Agreement, ExportReport, compare_features, probe
from recyclelora.exchange.exports.source import Source, features
from recyclelora.models.backbones.loading import load_available
from recyclelora.models.backbones.timm import build_timm
from recyclelora.models.timm_library import save_for_hf, timm
from recyclelora.system.storage import write_text

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Whole:
    """A timm model that can be loaded strictly.

    Attributes:
        model: adapted blocks, pretrained rest.
        restored: its tensors that the run did not have, from the pretrained weights.
        initialised: those that the pretrained weights do not have either.
    """

    model: nn.Module
    restored: list[str]
    initialised: list[str]


def whole(source: Source) -> Whole:
    """The complete timm model around the run's merged backbone."""
    b = source.backbone
    model = build_timm(b.model, source.run.config.seed, source.timm_arguments)
    own = source.state_for(model)
    foreign = model.state_dict().keys() - own.keys()
    missing: set[str] = set()
    if source.pretrained is not None:
        missing = foreign & load_available(model, source.pretrained, source.resampling)
    model.load_state_dict(own, strict=False)
    return Whole(model.eval().requires_grad_(False), sorted(foreign - missing), sorted(missing))


def write(source: Source, folder: Path, config: ExportConfig) -> ExportReport:
    """Write ``model.safetensors``, ``config.json``, ``load.py`` and ``README.md``."""
    complete = whole(source)
    preprocessing = {
        "mean": tuple(source.backbone.mean),
        "std": tuple(source.backbone.std),
        "input_size": (3, *source.image_size),
    }
    save_for_hf(complete.model, str(folder), safe_serialization=True, data_config=preprocessing)
    depth = len(complete.model.get_submodule("blocks"))  # type: ignore[arg-type]
    last = source.adapted.depth - 1
    words = source.words | {"weights": WEIGHTS, "last": last, "depth": depth, "rest": _rest(source, complete)}
    write_text(folder / "load.py", texts.TIMM_LOAD.format_map(words))
    write_text(folder / "README.md", texts.TIMM_README.format_map(words))
    loaded = timm.create_model(
        source.backbone.model, checkpoint_path=str(folder / WEIGHTS), **source.timm_arguments
    ).eval()
    parts = {"restored": complete.restored, "initialised": complete.initialised}
    return ExportReport(compare_backbones(source, loaded), FLOAT32, parts)


def compare_backbones(source: Source, model: nn.Module) -> list[Agreement]:
    """Features of the adapted backbone against those of ``model``, at the size for which that is laid out.

    And, if the run's own is laid out for that size, at another one, where timm resamples both.
    """
    patch, levels = source.adapted.patch_size, source.adapted.levels
    images = (probe(2, source.image_size) - source.plain.mean) / source.plain.std
    with torch.inference_mode():
        checks = [compare_features(images, source.adapted(images), features(model, levels, images))]
    if source.image_size == source.own_size:
        images = (probe(2, (3 * patch, 5 * patch)) - source.plain.mean) / source.plain.std
        expected = features(source.adapted.model, levels, images)
        checks.append(compare_features(images, expected, features(model, levels, images)))
    return checks


def _rest(source: Source, complete: Whole) -> str:
    """One sentence on the tensors that are not the run's."""
    origin = "from the pretrained weights" if source.pretrained is not None else "as it was before training"
    parts = sorted({".".join(name.split(".")[: 1 + name.startswith("blocks.")]) for name in complete.restored})
    text = f"What it does not read is {origin}: {', '.join(parts)}." if parts else ""
    if complete.initialised:
        text += f" In neither, and so initial values: {', '.join(complete.initialised)}."
    return text
