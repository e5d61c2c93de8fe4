"""The options of a race: what is wrong with them, and the race that they describe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recyclelora.sweep.race.rules import BEST, OBJECTIVE, Race, is_named
from recyclelora.sweep.record import RaceRecord
from recyclelora.sweep.space import Space, discrete, listed
from recyclelora.system.checks import nearest
from recyclelora.system.errors import UserError

TARGETS = "miou.mean"
"""What a race compares by default: the mean of the targets at the last checkpoint, as reports do."""


def wrong_race(options: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the options of ``hydra.sweeper``, as far as a race is concerned."""
    if options["race"] is None:
        return
    if options["race_seeds"] < 2:
        yield f"hydra.sweeper.race_seeds={options['race_seeds']}: one seed decides nothing; at least 2"
    if not 0 < options["race_alpha"] < 1:
        yield f"hydra.sweeper.race_alpha={options['race_alpha']}: must be between 0 and 1"
    if options["storage"] not in (None, "memory") and not str(options["storage"]).startswith("sqlite"):
        yield "hydra.sweeper.race: one driver runs a race; leave hydra.sweeper.storage out"
    if options["confirm"]:
        return
    chooses = next((part for part in ("sampler", "pruner") if options[part] is not None), None)
    if chooses is not None:
        yield f"hydra.sweeper.race: with a {chooses}, say how many of the best candidates race: confirm=3"
    if options["repeats"] > 1:
        yield f"hydra.sweeper.race: gives as many seeds as are needed; leave repeats={options['repeats']} out"


def make_race(
    options: Mapping[str, Any], space: Space, planned: Sequence[Mapping[str, Any]], config: DictConfig
) -> Race | None:
    """The race that the options describe; None where they describe none.

    Raises:
        UserError: it cannot be run.
    """
    if options["race"] is None:
        return None
    references = tuple(map(str, listed(options["race"])))
    if "seed" in space.distributions:
        raise UserError("hydra.sweeper.race: gives the seeds itself; leave seed out of what varies")
    if not options["confirm"] and len(planned) < 2:
        raise UserError("hydra.sweeper.race: one candidate has nobody to race; let something vary: adapter=frozen,lora")
    if references != (BEST,):
        for text in references:
            _check_reference(text, space, planned, chosen=bool(options["confirm"]))
    on = str(options["race_on"])
    if on == TARGETS and OmegaConf.select(config, "data.targets") == []:
        raise UserError("hydra.sweeper.race_on: the data have no targets; compare race_on=miou.source_val")
    names = options["objectives"] or [OBJECTIVE]
    directions = options["direction"] if isinstance(options["direction"], list) else [options["direction"]]
    higher = dict(zip(names, directions, strict=False)).get(on, "maximize") == "maximize"
    return Race(references, on, float(options["race_alpha"]), int(options["race_seeds"]), higher)


def _check_reference(text: str, space: Space, planned: Sequence[Mapping[str, Any]], *, chosen: bool) -> None:
    """Refuse a reference that names none of the candidates, or several of those that race without a search."""
    if not chosen:
        named = [point for point in planned if is_named(text, point)]
        if len(named) > 1:
            whole = ",".join(f"{key}={value}" for key, value in named[0].items())
            raise UserError(
                f"hydra.sweeper.race={text}: {len(named)} candidates have it; name one whole ('{whole}'), or let each "
                f"race at its best: confirm=1 hydra.sweeper.confirm_by=[{next(iter(named[0]))}]"
            )
        if named:
            return
    values = [f"{key}={value}" for key in space.distributions for value in _values(key, space)]
    if not any(text in (value, value.partition("=")[2]) for value in values):
        raise UserError(
            f"hydra.sweeper.race={text}: names no value of this sweep{nearest(text, values)}; "
            f"'{BEST}' or one of: {', '.join(values[:20])}"
        )


def _values(key: str, space: Space) -> Sequence[Any]:
    try:
        return discrete(key, space.distributions[key])
    except UserError:  # an interval
        return []


def race_record(race: Race) -> RaceRecord:
    """As ``study.json`` keeps it."""
    return {"references": list(race.references), "on": race.on, "alpha": race.alpha, "higher": race.higher}
