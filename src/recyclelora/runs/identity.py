"""Which run a configuration is, and where it belongs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recyclelora.config.run import Config
from recyclelora.runs.directory import RunDirectory
from recyclelora.runs.unit import Unit
from recyclelora.system.checks import before_additions, identity_fields
from recyclelora.system.errors import UserError
from recyclelora.system.storage import read_json, write_json

if TYPE_CHECKING:
    from recyclelora.data.identity import Files

FREE = (
    "output_dir", "cache", "study", "fresh", "tracking", "factor_cache_gib", "data.root", "data.folder.root",
    "data.decode_cache", "trainer.num_workers", "trainer.log_every", "trainer.num_figures", "trainer.checkpoint_every",
    "trainer.eval_window_batch", "trainer.stall_timeout", "data.cityscapes_labels", "metrics",
)  # fmt: skip
"""Keys that do not change what is computed, except by the files that are read, which are part of the data's digest."""

NAMES_OF_CONTENT = ("data.root", "data.folder.root", "data.cityscapes_labels")
"""Those of :data:`FREE` that say which files are read: what is in them is told apart only once they are opened."""

NOT_IDENTITY = (
    *FREE, "init_from", "backbone.checkpoint", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "trainer.strategy", "trainer.precision", "adapter.calibration.folder",
)  # fmt: skip
"""Keys whose text is not part of the identity; those that are not free enter by content (paths) or resolved."""


@dataclass(frozen=True)
class Identity:
    """What makes two runs the same run."""

    weights_sha256: str | None
    dataset_digest: str
    """of what is trained on"""
    precision: str
    world_size: int
    init_sha256: str | None = None
    """of the adapter that ``init_from`` starts from"""
    calibration: str | None = None
    """digest of the images that the adapter looks at before it starts"""

    def as_dict(self) -> dict[str, Any]:
        """Its fields; without images there is no ``calibration``, which runs of the first release do not know."""
        fields = dataclasses.asdict(self)
        return fields if self.calibration is not None else {k: v for k, v in fields.items() if k != "calibration"}


def signature(config: Config, identity: Identity) -> str:
    """First 16 hex digits of the sha256 over the resolved configuration and the content it refers to."""
    fields = _fields_without(config, (*NOT_IDENTITY, *_without_effect(config, identity)))
    text = json.dumps({"config": fields, "identity": identity.as_dict()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trains_as(config: Config) -> str:
    """Hex sha256, equal for configurations that train the same without a look at weights, data or hardware.

    What a :func:`signature` knows by content or resolved is here known by its text: two of these may still be one run,
    but never is one of these two runs.
    """
    fields = _fields_without(config, (key for key in FREE if key not in NAMES_OF_CONTENT))
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _fields_without(config: Config, keys: Iterable[str]) -> dict[str, Any]:
    """The fields of a configuration that can be part of an identity, but for some."""
    fields: dict[str, Any] = identity_fields(config)
    for key in keys:
        *parents, leaf = key.split(".")
        node = fields
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(leaf, None)
    return fields


def evaluation_identity(
    weights: str, sets: Mapping[str, str], protocol: Mapping[str, Any], classes: Sequence[str], precision: str
) -> str:  # fmt: skip
    """sha256 of all that scores depend on: two evaluations with the same one ask the same question.

    Args:
        weights: digest of the trained tensors; the frozen ones are the run's
        sets: name in the result -> digest of what is scored, and of how it is read
        protocol: its values
        classes: their names by train id
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``
    """
    asked = [weights, dict(sets), dict(protocol), list(classes), precision]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _without_effect(config: Config, identity: Identity) -> Iterator[str]:
    """Options younger than the first release that change nothing here: a run that it began is the same run.

    What looks at no data has no use for ``calibration``. In float32 there is no autocast for ``mixed_precision``; and
    ``positions`` is about other sizes than the one that is laid out, of weights that were pretrained on another grid.
    """
    if identity.precision in ("", "32-true"):
        yield "adapter.mixed_precision"
    if not getattr(config.adapter, "looks_at", ()):
        yield "adapter.calibration"
    crop, protocol = list(config.data.augment.crop), config.data.protocol
    laid_out = list(config.backbone.image_size or crop)
    one_size = crop == laid_out and protocol.mode == "slide" and laid_out == [protocol.window] * 2
    if identity.weights_sha256 is None or one_size:
        yield "backbone.positions"


def same_but_for_content(config: Config) -> str:
    """16 hex digits, equal for configurations that are one run wherever weights, data and hardware are the same.

    For two of which that is known, such as those of one run directory; of others, :func:`trains_as` asks.
    """
    nothing = Identity(None, "", "", 0)
    return signature(config, nothing)


@dataclass(frozen=True)
class Place:
    """Which run a configuration is, and where everything of it lies."""

    identity: Identity
    """what makes it this run"""
    signature: str
    """16 hex digits"""
    directory: RunDirectory


def place_of(config: Config, identity: Identity, trial: int | None, unit: Unit | None = None) -> Place:
    """Where a run belongs.

    ``runs/<adapter>-<backbone>-<data>-<signature>``, for a trial of a sweep ``sweeps/<study>/trial_0007-<signature>``,
    with ``seed_<s>`` inside where the trial is repeated; the outer signature leaves the seed out then.
    """
    root = Path(config.output_dir).absolute()
    sign = signature(config, identity)
    if unit is not None:
        path = unit.trial.parents[1] / f"{unit.run_prefix}-{sign}"
        if unit.repeated:
            shared = signature(dataclasses.replace(config, seed=0), identity)
            path = path.with_name(f"{unit.run_prefix}-{shared}") / f"seed_{config.seed}"
    elif trial is not None:
        if config.study is None:
            raise UserError("study: a multirun needs a name: add -m, or study=<name>")
        path = root / "sweeps" / str(config.study) / f"trial_{trial:04d}-{sign}"
    else:
        path = root / "runs" / f"{config.adapter.name}-{config.backbone.name}-{config.data.name}-{sign}"
    return Place(identity, sign, RunDirectory(path))


def find_run(config: Config, identity: Identity, files: Files, trial: int | None, unit: Unit | None = None) -> Place:
    """The place of a run.

    A run is also found where it began under another identity of the same training: before files that it could not read
    were mended, or under version 0.1.0, to which the scored sets were part of what a training is.
    """

    def place(digest: str) -> Place:
        return place_of(config, dataclasses.replace(identity, dataset_digest=digest), trial, unit)

    now = place(files.trained_on())
    if config.fresh or now.directory.path.exists():
        return now
    earlier = place(files.all_together())
    if earlier.directory.path.exists():
        return earlier
    for alike in now.directory.alike():
        as_then = unreadable_files(alike)
        if not as_then:
            continue
        for found in (place(files.trained_on(as_then)), place(files.all_together(as_then))):
            if found.directory == alike:
                return found
    return now


def earlier_run(config: Config, identity: Identity, files: Files, trial: int | None) -> str | None:
    """A sentence on the run that version 0.1.0 began for the same command, whose shipped options had other values."""
    if config.losses:  # that version had none besides the decoder's
        return None
    before, overrides = before_additions(config)
    ignored = (*NOT_IDENTITY, *_without_effect(config, identity))
    overrides = [override for override in overrides if override.partition("=")[0] not in ignored]
    if not overrides:
        return None
    path = find_run(before, identity, files, trial).directory.path
    if not path.exists():
        return None
    return (
        f"{Path(config.output_dir) / path.relative_to(Path(config.output_dir).absolute())} is the run of this command "
        "with the options of version 0.1.0, which this one does not touch; "
        f"to go on with it, or see its result, add: {shlex.join(overrides)}"
    )


def unreadable_files(run: RunDirectory) -> dict[str, int]:
    """The files that a run could not read, by their name in :class:`Files`, and the bytes that they had then."""
    if not run.unreadable.exists():
        return {}
    found = read_json(run.unreadable)
    if not isinstance(found, dict) or not all(isinstance(size, int) for size in found.values()):
        raise UserError(f"{run.unreadable}: must be an object of file names and numbers of bytes")
    return found


def note_unreadable(run: RunDirectory, files: Files, names: Iterable[str]) -> None:
    """Remember files that could not be read, so that the run is found again when they are mended."""
    known = unreadable_files(run)
    new = {name: size for name, size in files.sizes(names).items() if name not in known}
    if new:
        write_json(run.unreadable, {**known, **new})
