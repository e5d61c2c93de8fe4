"""Options of a sweep whose trials pause: what they say of rungs, and what does not go together with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recyclelora.sweep.rungs import KINDS, Rungs
from recyclelora.sweep.samplers import FITS_PAUSES, LEARN_AT_RUNGS, sampler_name

ENOUGH = 10
"""Trials at a rung from which a sampler may learn, where its ``n_startup_trials`` says nothing else."""


def _kind(options: Mapping[str, Any]) -> str | None:
    return (options["pruner"] or {}).get("kind")


def make_rungs(options: Mapping[str, Any], config: DictConfig) -> Rungs | None:
    """Where trials pause; None where they do not.

    Args:
        options: of ``hydra.sweeper``
        config: composed without what varies

    Raises:
        UserError: an option that makes no sense.
    """
    if _kind(options) not in KINDS:
        return None
    return Rungs.of(options["pruner"], OmegaConf.select(config, "trainer.max_steps"))


def learns_from(options: Mapping[str, Any]) -> int | None:
    """How many trials at a rung its sampler learns from; None for one that learns from finished trials, or not."""
    sampler = options["sampler"]
    if _kind(options) not in KINDS or sampler is None or sampler_name(sampler) not in LEARN_AT_RUNGS:
        return None
    return int(sampler.get("n_startup_trials") or ENOUGH)


def unfit_for_pauses(options: Mapping[str, Any]) -> Iterator[str]:
    """What does not go together with trials that pause."""
    kind = _kind(options)
    if kind not in KINDS:
        return
    if options["objectives"] is not None:
        yield f"hydra.sweeper.objectives: {kind} compares `objective`, the mIoU at a pause; leave them out"
    if options["constraints"]:
        yield f"hydra.sweeper.constraints: are known of finished trials only; leave them out, or {kind}"
    if options["sampler"] is not None and (name := sampler_name(options["sampler"])) not in FITS_PAUSES:
        yield f"hydra/sweeper/sampler: {name} learns from finished trials only; with {kind} take tpe, gp, random or qmc"
