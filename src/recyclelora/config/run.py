"""A whole training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Optional

from omegaconf import MISSING

from recyclelora.adapters.config import ADAPTERS
from recyclelora.config.training import OptimizerConfig, TrackingConfig, TrainerConfig
from recyclelora.data.config import DataConfig
from recyclelora.models.backbones.config import BackboneConfig
from recyclelora.models.decoders.config import DECODERS
from recyclelora.models.losses.config import LOSSES
from recyclelora.system.checks import Problem, added, at_least, checked, file_name, nearest, one_of, with_additions
from recyclelora.system.plugins import option_plugins, plugins

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


METRICS = "recyclelora.metrics"
"""Entry points of this group: further metrics by name, see :mod:`recyclelora.evaluation.extra_metrics`."""
OWN_METRICS = ("boundary", "calibration", "uncertainty")
"""Those that are built in, see :mod:`recyclelora.evaluation.pixel_metrics`."""


BUILT_IN: dict[str, tuple[dict[str, type], str, str]] = {
    "adapter": (ADAPTERS, "recyclelora.adapters", "method"),
    "decoder": (DECODERS, "recyclelora.decoders", "build"),
    "losses": (LOSSES, "recyclelora.losses", "build"),
}
"""Group of options -> its kinds, the entry points that add some, and the method that makes something of one."""


def option_kinds() -> dict[str, dict[str, type]]:
    """Group -> the kinds of options that are built in, and those of installed packages."""
    return {group: kinds | option_plugins(entries, kinds, needs) for group, (kinds, entries, needs) in BUILT_IN.items()}


def unknown_metrics(metrics: Sequence[str]) -> Iterator[Problem]:
    """Names of metrics that are neither built in nor offered by an installed package."""
    names = [*OWN_METRICS, *plugins(METRICS, OWN_METRICS)] if metrics else []
    for name in metrics:
        if name not in names:
            yield (
                "metrics",
                f"no metric {name!r} is built in or installed{nearest(name, names)}; {', '.join(names)} are",
            )


ACROSS_BLOCKS = "needs weights outside their block, where no process has all of them: use ddp"
"""Why options whose ``across_blocks`` is true are refused with sharded models."""


@dataclass
class Config:
    """One training run."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """the pretrained model"""
    adapter: Any = MISSING
    """what of it trains, and how"""
    decoder: Any = MISSING
    """from features to classes"""
    data: DataConfig = field(default_factory=DataConfig)
    """sources and targets"""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """how long and on what"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """how weights change"""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """who is told"""
    seed: int = checked(0, at_least, 0)
    """of everything that is drawn in training"""
    objective: str = checked("source_val", one_of, ("source_val", "target_mean"))
    """what a sweep maximises; ``target_mean`` is tuned on targets"""
    init_from: Optional[str] = None
    """finished run whose adapter and decoder this one starts from; null begins anew"""
    output_dir: str = "outputs"
    """holds ``runs`` and ``sweeps``"""
    cache: str = MISSING
    """folder of what is computed once"""
    factor_cache_gib: float = checked(4.0, at_least, 0)
    """bound on the decomposed weights that are kept there"""
    study: Optional[str] = None
    """sweep that the run is a trial of; set by the sweep"""
    fresh: bool = False
    """whether a run that is there is renamed and begun anew"""
    losses: dict[str, Any] = added(dict)
    """added to the decoder's, by name: options of the group ``losses``"""
    metrics: list[str] = added(list)
    """further ones, built in or of installed packages, that every evaluation computes"""

    def check(self) -> Iterator[Problem]:
        plain = [name for name in ("adapter", "decoder") if not is_dataclass(getattr(self, name))]
        plain += [f"losses.{name}" for name, options in self.losses.items() if not is_dataclass(options)]
        for name in plain:  # their fields may be anything, for options of other packages: OmegaConf does not look
            yield name, "must be an option of this group, such as a file in conf/ describes it"
        if "adapter" not in plain:
            yield from file_name("adapter.name", self.adapter.name)
        if self.study is not None:
            yield from file_name("study", self.study)
        for side, crop in zip(("height", "width"), self.data.augment.crop, strict=False):
            if self.backbone.patch_size > 0 and crop % self.backbone.patch_size:
                yield (
                    "data.augment.crop",
                    f"{side} {crop} is not a multiple of the patch size {self.backbone.patch_size}",
                )
        if not plain:
            yield from self._check_together()

    def check_new(self) -> Iterator[Problem]:
        yield from unknown_metrics(self.metrics)
        if self.objective == "target_mean" and not self.data.targets:
            yield "objective", "needs data.targets, and there are none: source_val is the validation"

    def _check_together(self) -> Iterator[Problem]:
        """What adapter, decoder, data and trainer must agree on."""
        adapter, decoder, steps = self.adapter, self.decoder, self.trainer.max_steps
        if 0 < steps <= self.optimizer.backbone_delay:
            yield "optimizer.backbone_delay", f"must be below trainer.max_steps={steps}: the backbone would never learn"
        queries, classes = getattr(decoder, "num_queries", None), len(self.data.classes.names)
        if queries is not None and queries < classes:
            yield "decoder.num_queries", f"must not be below the {classes} classes"
        for name in getattr(getattr(decoder, "loss", None), "class_weights", ()):
            if name not in self.data.classes.names:
                yield "decoder.loss.class_weights", f"{name!r} is no class{nearest(name, self.data.classes.names)}"
        if self.trainer.strategy == "fsdp":
            parts = {f"adapter={adapter.name}": adapter} | {f"losses.{name}": self.losses[name] for name in self.losses}
            for name, part in parts.items():
                if getattr(part, "across_blocks", False):
                    yield "trainer.strategy", f"{name} {ACROSS_BLOCKS}"
            if self.backbone.model.startswith("samvit"):
                yield "trainer.strategy", "the relative positions of SAM are read outside its blocks: use ddp"
        for name, what in getattr(adapter, "check_with", lambda *_: ())(decoder, steps):
            yield f"adapter.{name}", what
        for loss, options in self.losses.items():
            for name, what in getattr(options, "check_with", lambda *_: ())(adapter, steps):
                yield f"losses.{loss}.{name}", what


def of_any_version(stored: dict[str, Any]) -> dict[str, Any]:
    """The ``config.yaml`` of a run as this version would have written it: younger options say what was done then."""
    found: dict[str, Any] = with_additions(stored, Config)
    for group, kinds in option_kinds().items():
        parts = found.get(group)
        holder, keys = (parts, [*parts]) if group == "losses" and isinstance(parts, dict) else (found, [group])
        for key in keys:
            if isinstance(options := holder.get(key), dict) and options.get("kind") in kinds:
                holder[key] = with_additions(options, kinds[options["kind"]])
    return found
