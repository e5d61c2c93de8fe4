"""``study.json``: what a sweep was begun with, and with what it may go on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recyclelora.runs.provenance import FREE, command_line
from recyclelora.sweep.goals import tuned_on_targets
from recyclelora.sweep.ledger import read_study
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.samplers import sampler_name
from recyclelora.system.errors import UserError
from recyclelora.system.storage import write_json

MAY_CHANGE = ("name", "n_trials", "command", "created", "pruner", "warm_start", "fixed", "reuse")
"""Entries of ``study.json`` with which the same study may go on; a renamed folder is the same study."""

GRID_MAY_CHANGE = ("space", "sampler")
"""The same of a grid, which takes more values, or fewer; see ``planning.fit_grid``."""


def described(
    options: Mapping[str, Any], plan: Plan, config: DictConfig, directions: list[str], name: str
) -> dict[str, Any]:
    """The content of ``study.json``."""
    base = OmegaConf.to_container(config, resolve=False)
    assert isinstance(base, dict)
    base.pop("hydra")
    plain = {str(key): value for key, value in base.items()}
    return {
        "name": name,
        "directions": directions,
        "objectives": options["objectives"] or [str(plain.get("objective", "value"))],
        "tuned_on_targets": tuned_on_targets(options["objectives"], plain),
        "sampler": None if options["sampler"] is None else sampler_name(options["sampler"]),
        "pruner": (options["pruner"] or {}).get("kind"),
        "n_trials": plan.n_trials,
        "repeats": options["repeats"],
        "constraints": options["constraints"],
        "fixed": list(plan.space.fixed.values()),
        "space": {key: str(distribution) for key, distribution in plan.space.distributions.items()},
        "conditions": options["conditions"],
        "warm_start": options["warm_start"] is not None,
        "reuse": options["reuse"],
        "command": command_line(),
        "config": plain,
    }


def is_grid(about: Mapping[str, Any]) -> bool:
    """Whether a study takes every point of its space."""
    return about.get("sampler") in (None, "GridSampler")


def other_values(folder: Path, about: Mapping[str, Any]) -> bool:
    """Whether a grid was begun with other values than it is to have now."""
    stored = _stored(folder)
    if stored is None:
        return False
    keys = ("space", "fixed") if is_grid(stored) and is_grid(about) else ()
    return any(stored.get(key) != about[key] for key in keys)


def _stored(folder: Path) -> dict[str, Any] | None:
    """What a sweep was begun with.

    Raises:
        UserError: ``study.json`` is not what was written.
    """
    try:
        stored = read_study(folder)
    except UserError as error:
        raise UserError(
            f"{error}; if what is in ledger/ is right, remove this file, and the command goes on"
        ) from error
    return None if stored is None else dict(stored)


def record(folder: Path, about: dict[str, Any]) -> None:
    """Write ``study.json``; a study goes on only with what it was begun with.

    Raises:
        UserError: naming what differs.
    """
    path = folder / "study.json"
    stored = _stored(folder)
    if stored is not None:
        free = (*MAY_CHANGE, *(GRID_MAY_CHANGE if is_grid(stored) and is_grid(about) else ()))
        differences = [
            text for key in about if key not in free for text in _differences(key, stored.get(key), about[key])
        ]
        if differences:
            raise UserError(
                f"{folder.name}: was begun with other settings; give it another name with study=, or start over with "
                "fresh=true:\n" + "\n".join(f"  {text}" for text in differences[:10])
            )
        about["created"] = stored["created"]
    else:
        about["created"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_json(path, about)


def _differences(key: str, before: Any, after: Any) -> Iterator[str]:
    if key.removeprefix("config.") in FREE:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            yield from _differences(f"{key}.{name}", before.get(name), after.get(name))
    elif before != after:
        yield f"{key.removeprefix('config.')}: was {before}, now {after}"
