"""The run directory of an imported checkpoint: what ``train.py`` would have left, without curves and result."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from safetensors.torch import save

from recyclelora.config.compose import home
from recyclelora.exchange.importing.conversion import Converted
from recyclelora.runs.directory import BACKBONE
from recyclelora.runs.identity import Identity, place_of
from recyclelora.runs.record import add_to_record, claimed, describe, record
from recyclelora.runs.weights import write_run_weights
from recyclelora.system.devices import resolve_accelerator, resolve_precision
from recyclelora.system.storage import write_bytes


def write_run(converted: Converted) -> Path:
    """Write the run directory; the same import finds the same one. Returns its path.

    Raises:
        UserError: it cannot be written.
    """
    config, source, frozen = converted.config, converted.source, converted.frozen
    content = None if frozen is None else save({name: value.contiguous() for name, value in frozen.items()})
    pretrained = converted.pretrained.sha256 if converted.pretrained else hashlib.sha256(content or b"").hexdigest()
    precision = resolve_precision(config.trainer.precision, resolve_accelerator(config.trainer.accelerator))
    identity = Identity(pretrained, "", precision, 1, source.sha256)
    place = place_of(config, identity, None)
    run = place.directory
    if content is not None:
        config = dataclasses.replace(
            config, backbone=dataclasses.replace(config.backbone, checkpoint=str(run.path / BACKBONE))
        )
    with claimed(run, config):
        if content is not None:
            write_bytes(run.path / BACKBONE, content)
        write_run_weights(run.path, converted.weights, config, signature=place.signature, weights_sha256=pretrained)
        origin = _origin(converted)
        record(run, describe(config, place, origin, home()))
        add_to_record(run, origin)
    return run.path


def _origin(converted: Converted) -> dict[str, object]:
    """What ``run.json`` tells of an imported run instead of its data."""
    file, source = converted.pretrained, converted.source
    return {
        "origin": "imported",
        "checkpoint": {
            "kind": converted.kind,
            "file": source.path.name,
            "sha256": source.sha256,
            "ignored": converted.ignored,
        },
        "weights_origin": f"checkpoint:{source.path.name}" if file is None else file.origin,
        "datasets": [],
        "source_classes": None,
    }
