"""Options of how a search learns, from pauses and from what trials cost, and what does not go together with them."""

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


def _startup(options: Mapping[str, Any]) -> int:
    return int((options["sampler"] or {}).get("n_startup_trials") or ENOUGH)


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
    return _startup(options)


def unfit(options: Mapping[str, Any]) -> Iterator[str]:
    """What does not go together."""
    for part in (_unfit_for_pruners, _unfit_for_a_grid, _unfit_for_pauses, _unfit_for_cost):
        yield from part(options)


def _unfit_for_pruners(options: Mapping[str, Any]) -> Iterator[str]:
    """What pruners of any kind cannot do."""
    if options["pruner"] and isinstance(options["direction"], list | tuple) and len(options["direction"]) > 1:
        yield "hydra.sweeper.pruner: Optuna prunes sweeps with one objective only"
    if _kind(options) == "wilcoxon" and options["repeats"] < 2:
        yield "hydra.sweeper.pruner=wilcoxon: compares seeds; set hydra.sweeper.repeats to 2 or more"


def _unfit_for_pauses(options: Mapping[str, Any]) -> Iterator[str]:
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


def per_second(options: Mapping[str, Any]) -> int | None:
    """After how many trials the next one is chosen by its cost, too; None for never."""
    return _startup(options) if options["per_second"] else None


def _unfit_for_a_grid(options: Mapping[str, Any]) -> Iterator[str]:
    """What only a search can heed."""
    if options["sampler"] is None or sampler_name(options["sampler"]) == "GridSampler":
        for part in ("transfer", "prior", "per_second"):
            if options[part]:
                yield f"hydra.sweeper.{part}: needs a search: add hydra/sweeper/sampler=tpe"


def _unfit_for_cost(options: Mapping[str, Any]) -> Iterator[str]:
    """What does not go together with expected improvement per second."""
    if not options["per_second"]:
        return
    if _kind(options) is not None:
        yield f"hydra.sweeper.per_second: learns from whole trials; leave it out, or {_kind(options)}"
    if isinstance(options["direction"], list | tuple) and len(options["direction"]) > 1:
        yield "hydra.sweeper.per_second: has one objective; with several make the cost one of them: gpu_seconds"
    if options["constraints"]:
        yield "hydra.sweeper.per_second: knows no constraints; leave one of the two out"
