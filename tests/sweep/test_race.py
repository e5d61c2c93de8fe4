"""Races over seeds: what is decided, who gets another seed, and a driver that is killed in the middle."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from sweeping import Sweeping

from hydra_plugins.recyclelora_sweeper.config import RecycleLoraSweeperConf
from recyclelora.runs.unit import Unit
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.ledger import COMPLETE, FAILED, Ledger, now
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.race.anytime import anytime_p, decide
from recyclelora.sweep.race.options import make_race, wrong_race
from recyclelora.sweep.race.reading import read_race
from recyclelora.sweep.race.rules import BEST, OBJECTIVE, Entrant, Race, conclusion, judge
from recyclelora.sweep.race.running import Racing
from recyclelora.sweep.search import Search
from recyclelora.sweep.space import Space
from recyclelora.system.errors import UserError

METHODS = ["frozen", "good", "bad", "same"]
MEANS = {"frozen": 0.0, "good": 3.0, "bad": -3.0, "same": 0.01}


def score(method: str, seed: int) -> float:
    """One of four methods on a seed: its mean, what the seed is worth to all, and chance."""
    return MEANS[method] + random.Random(seed).gauss(0, 5) + random.Random(f"{method} {seed}").gauss(0, 0.3)


def race(*references: str, seeds: int = 12) -> Race:
    return Race(references or ("frozen",), OBJECTIVE, 0.05, seeds)


def entrant(name: str, count: int, **more: bool) -> Entrant:
    return Entrant(name, tuple(score(name, seed) for seed in range(count)), **more)


class Running:
    """A race of the ledger whose runs end at once."""

    def __init__(self, sweep: Path, *references: str, seeds: int = 12, places: int = 1) -> None:
        space = Space({"adapter": CategoricalDistribution(METHODS)}, ["adapter"], {})
        points = [{"adapter": method} for method in METHODS]
        self.plan = Plan(
            space, len(points), points, None, race=race(*references, seeds=seeds), race_first=[0], retry_failed=True
        )
        self.places = places
        study = optuna.create_study(direction="maximize")
        self.search = Search(self.plan, study, Ledger(sweep), "a-1")
        self.racing = Racing(self.plan, self.search)

    def run(self, most: int = 1000, fails: Callable[[str, int], bool] = lambda method, seed: False) -> list[str]:
        """What was run, in this order."""
        ran: list[str] = []
        self.again = self.racing.failed_again()
        while len(ran) < most:
            batch = [found for _ in range(self.places) if (found := self._next()) is not None]
            if not batch:
                break
            for trial, unit in batch:
                method, seed = trial.params["adapter"], int(trial.units[unit][-1].partition("=")[2])
                ran.append(f"{method} {seed}")
                attempt = len(trial.attempts_of(unit)) + 1
                trial.attempts.append(Attempt(unit, attempt, "job", now()))
                failed = fails(method, seed)
                values = {} if failed else {"values": [score(method, seed)]}
                status = "failed" if failed else "complete"
                Unit(trial.unit_folder(unit)).outcome(status, attempt=attempt, seconds=1.0, **values)
                if failed:
                    trial.end(FAILED, reason="nan")
                else:
                    trial.save_state()
        return ran

    def _next(self):
        if self.again:
            return self.again.pop()
        trial = self.search.next()
        if trial is not None:
            return trial, 0
        for trial, standing in self.racing.done():
            trial.end(COMPLETE, values=[0.0], reason=standing)
        return self.racing.next()

    @property
    def states(self) -> dict[str, str]:
        return {trial.params["adapter"]: trial.state for trial in self.racing.entrants}

    @property
    def seeds(self) -> dict[str, int]:
        return {trial.params["adapter"]: len(trial.units) for trial in self.racing.entrants}


def test_each_is_compared_with_the_reference_on_its_pairs_of_seeds():
    entrants = [entrant(name, 9, reference=name == "frozen") for name in METHODS]
    standings = judge(race(), entrants)
    paired = [[a - b for a, b in zip(e.values, entrants[0].values, strict=True)] for e in entrants[1:]]
    assert [s.against["frozen"] for s in standings[1:]] == decide(paired)
    assert [s.against["frozen"].verdict for s in standings[1:]] == ["better", "worse", "undecided"]
    assert [s.over for s in standings] == [False, True, True, False]
    assert str(standings[1]) == "better than frozen, decided after 9 seeds"
    assert str(standings[3]).startswith("undecided against frozen after 9 seeds")
    assert conclusion(race(), standings).startswith("Against frozen: better good; worse bad; undecided same.")
    lower = judge(dataclasses.replace(race(), higher=False), entrants)
    assert [s.against["frozen"].verdict for s in lower[1:]] == ["worse", "better", "undecided"]


def test_with_two_references_all_comparisons_count():
    entrants = [entrant(name, 9, reference=name in ("frozen", "good")) for name in METHODS]
    standings = judge(race("frozen", "good"), entrants)
    against = [list(s.against) for s in standings]
    assert sum(map(len, against)) == 5 and against[2] == against[3] == ["frozen", "good"]
    adjusted = [decision.p for s in standings for decision in s.against.values()]
    raw = anytime_p([a - b for a, b in zip(entrants[2].values, entrants[1].values, strict=True)])  # the farthest apart
    assert raw is not None and min(p for p in adjusted if p is not None) == pytest.approx(5 * raw)
    assert standings[3].against["good"].verdict == "worse" and not standings[3].over  # against frozen it is open


@pytest.mark.parametrize(
    ("references", "entrants", "claims"), [((BEST,), 6, 15), ((BEST,), 2, 1), (("a",), 6, 5), (("a", "b"), 6, 5 + 4)]
)
def test_every_pair_is_one_claim(references: tuple[str, ...], entrants: int, claims: int):
    """Against references: of each, all others, and not the same pair twice."""
    assert Race(references, OBJECTIVE, 0.05, 20).comparisons(entrants) == claims


def test_the_best_is_named_when_all_others_are_shown_to_be_worse_than_somebody():
    short = judge(race(BEST), [entrant(name, 4) for name in METHODS])
    assert "No best yet: undecided between good" in conclusion(race(BEST), short)
    long = judge(race(BEST), [entrant(name, 12) for name in METHODS])
    assert [s.won for s in long] == [False, True, False, False] and all(s.over for s in long)
    assert conclusion(race(BEST), long).startswith("good is the best, decided after 12 seeds")
    assert str(long[2]).startswith("not the best: worse than good, decided after")
    assert not any(s.won for s in judge(race(BEST), [entrant("good", 12)]))


def test_seeds_are_given_one_at_a_time_until_each_comparison_is_decided(tmp_path: Path):
    running = Running(tmp_path)
    ran = running.run()
    assert ran[:4] == ["frozen 0", "good 0", "bad 0", "same 0"] and len(set(ran)) == len(ran)
    assert running.seeds["frozen"] == running.seeds["same"] == 12
    assert 4 <= running.seeds["good"] < 12 and 4 <= running.seeds["bad"] < 12
    assert set(running.states.values()) == {COMPLETE}
    # none had a seed more than it took to decide, given what the others had then
    reasons = {trial.params["adapter"]: trial.reason for trial in running.racing.entrants}
    assert reasons["good"] == f"better than adapter=frozen, decided after {running.seeds['good']} seeds"
    assert str(reasons["same"]).startswith("undecided against adapter=frozen after 12 seeds")


def test_the_first_seeds_run_side_by_side_and_later_ones_wait(tmp_path: Path):
    running = Running(tmp_path, places=100)
    first = [running._next() for running.again in [[]] for _ in range(40)]
    given = [trial.params["adapter"] for trial, _ in filter(None, first)]
    assert sorted(given) == sorted(METHODS * running.plan.race.least(4))  # type: ignore[union-attr]


@pytest.mark.parametrize("references", [("frozen",), (BEST,), ("frozen", "good")])
def test_a_race_that_is_cut_anywhere_goes_on_as_if_it_had_not_been(tmp_path: Path, references: tuple[str, ...]):
    whole = Running(tmp_path / "whole", *references)
    wanted = whole.run()
    ran: list[str] = []
    while batch := Running(tmp_path / "cut", *references).run(most=3):
        ran += batch
    assert ran == wanted
    assert Running(tmp_path / "cut", *references).states == whole.states


def test_more_seeds_continue_what_was_undecided_and_nothing_else(tmp_path: Path):
    few = Running(tmp_path, seeds=6)
    few.run()
    assert few.seeds["same"] == 6
    more = Running(tmp_path, seeds=9)
    ran = more.run()
    assert {"frozen 8", "same 8"} <= set(ran) and set(more.states.values()) == {COMPLETE}
    decided = {t.params["adapter"] for t in few.racing.entrants if "decided after" in str(t.reason)}
    assert decided and not {text.split()[0] for text in ran} & {name for name in decided if few.seeds[name] < 6}


def test_a_failed_candidate_leaves_the_others_racing_and_comes_back_on_request(tmp_path: Path):
    running = Running(tmp_path)
    running.run(fails=lambda method, seed: method == "bad" and seed == 1)
    assert running.states == {"frozen": COMPLETE, "good": COMPLETE, "bad": FAILED, "same": COMPLETE}
    assert running.search.failures == 1 and running.seeds["bad"] < 6
    again = Running(tmp_path)
    ran = again.run()
    assert ran[0] == "bad 1" and again.states["bad"] == COMPLETE and "good 0" not in ran
    assert Running(tmp_path).run() == []


def test_without_its_reference_nothing_is_decided_and_the_race_ends(tmp_path: Path):
    running = Running(tmp_path)
    ran = running.run(fails=lambda method, seed: method == "frozen" and seed == 2)
    assert running.states["frozen"] == FAILED and len(ran) < 4 * 6
    assert all("undecided" in str(t.reason) for t in running.racing.entrants if t.state == COMPLETE)


def test_another_value_of_a_grid_joins_the_race(tmp_path: Path):
    running = Running(tmp_path)
    running.plan.planned[:] = running.plan.planned[:3]
    running.run()
    joined = Running(tmp_path)
    ran = joined.run()
    assert joined.seeds["same"] == 12 and "same 0" in ran and "frozen 0" not in ran
    assert [trial.number for trial in joined.racing.entrants] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_killed_driver_goes_on_with_the_race(tmp_path: Path):
    sweeping = Sweeping(tmp_path)
    options = [
        "x=1,2.95,3", "noise=0.2", "hydra.sweeper.race='x=3'", "hydra.sweeper.race_on=objective",
        "hydra.sweeper.n_jobs=3", "hydra.sweeper.race_seeds=6",
    ]  # fmt: skip
    process = sweeping.start(*options)
    executions = tmp_path / "executions"
    while not executions.exists() or len(executions.read_text().splitlines()) < 7:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, out, err = sweeping(*options)
    assert code == 0, err
    assert [len(trial.units) for trial in sweeping.trials] == [4, 6, 6]
    assert [trial.units[1] for trial in sweeping.trials] == [[f"x={x}", "noise=0.2", "seed=1"] for x in (1, 2.95, 3)]
    assert "worse than x=3, decided after 4 seeds" in out and "undecided against x=3 after 6 seeds" in out
    assert not (tmp_path / "repeated").exists()
    found = read_race(tmp_path / "out")
    assert found is not None and found[1][0].entrant.values == pytest.approx(
        [outcome["values"][0] for outcome in sweeping.trials[0].outcomes()]
    )
    code, _, err = sweeping(*[o for o in options if "race=" not in o], "hydra.sweeper.race=best")
    assert code == 2 and "race" in err and "other settings" in err


@pytest.mark.slow
def test_the_best_of_a_search_race_with_the_reference(tmp_path: Path):
    sweeping = Sweeping(tmp_path)
    code, out, err = sweeping(
        "x=1,3", "y=1,2", "noise=0.1", "hydra.sweeper.confirm=1", "hydra.sweeper.confirm_by=[y]",
        "hydra.sweeper.confirm_seeds=[100]", "hydra.sweeper.race='x=1'", "hydra.sweeper.race_on=objective",
        "hydra.sweeper.race_seeds=5", "hydra.sweeper.n_jobs=4",
    )  # fmt: skip
    assert code == 0, err
    entrants = [t for t in sweeping.trials if t.confirms]
    assert [t.params for t in entrants] == [{"x": "1", "y": "2"}, {"x": "3", "y": "1"}, {"x": "3", "y": "2"}]
    assert [unit[-1] for unit in entrants[0].units][:2] == ["seed=100", "seed=101"]
    assert "better than x=1, y=2, decided after" in out


X, Y = {"x": [1, 2]}, {"x": [1, 2], "y": [1, 2]}


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        (X, {"race": "x"}, "race=x: names no value of this sweep"),
        (X, {"race": ["x=1", "x=3"]}, "race=x=3: names no value of this sweep (did you mean x="),
        (Y, {"race": "x=1"}, "2 candidates have it; name one whole ('x=1,y=1')"),
        ({"x": [1]}, {"race": "best"}, "one candidate has nobody to race"),
        ({"x": [1, 2], "seed": [1, 2]}, {"race": "best"}, "gives the seeds itself"),
        (X, {"race": "best", "repeats": 3}, "leave repeats=3 out"),
        (X, {"race": "best", "race_seeds": 1}, "one seed decides nothing"),
        (X, {"race": "best", "race_alpha": 5}, "race_alpha=5: must be between 0 and 1"),
        (X, {"race": "best", "sampler": {"kind": "tpe"}}, "confirm=3"),
        (X, {"race": "best", "storage": "postgresql://a/b"}, "one driver runs a race"),
        (X, {"race": "best", "no targets": True}, "no targets; compare race_on=miou.source_val"),
    ],
)
def test_a_race_that_cannot_be_run_is_refused(values: dict[str, list[int]], options: dict[str, Any], said: str):
    given = {**dataclasses.asdict(RecycleLoraSweeperConf()), **options}
    space = Space({key: CategoricalDistribution(several) for key, several in values.items()}, list(values), {})
    config = OmegaConf.create({"data": {"targets": [] if "no targets" in options else ["day"]}})
    with pytest.raises(UserError) as error:
        if wrong := list(wrong_race(given)):
            raise UserError("; ".join(wrong))
        make_race(given, space, space.grid(), config)
    assert said in str(error.value)


def test_references_are_named_by_value_by_setting_or_whole():
    space = Space({key: CategoricalDistribution(several) for key, several in Y.items()}, list(Y), {})
    options = dataclasses.asdict(RecycleLoraSweeperConf()) | {"race": "x=1,y=2"}
    assert make_race(options, space, space.grid(), OmegaConf.create()) == Race(("x=1,y=2",), "miou.mean", 0.05, 20)
    chosen = options | {"race": ["x=1", "x=2"], "confirm": 1, "race_on": "objective", "direction": "minimize"}
    assert make_race(chosen, space, [], OmegaConf.create()) == Race(("x=1", "x=2"), "objective", 0.05, 20, False)
    assert make_race(options | {"race": None}, space, [], OmegaConf.create()) is None


def test_each_run_of_a_race_is_told_by_what_is_compared(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result.json").write_text(json.dumps({"miou": {"mean": 0.4065}, "movement": 0.02}))
    outcome: Any = {"status": "complete", "attempt": 1, "values": [0.4866], "run_dir": "run"}
    search: Any = SimpleNamespace(ledger=SimpleNamespace(sweep=tmp_path))
    told = {}
    for on in ("miou.mean", "movement", OBJECTIVE, "miou.night"):
        plan: Any = SimpleNamespace(race=Race(("frozen",), on, 0.05, 6))
        told[on] = Racing(plan, search).told(outcome)
    assert told == {
        "miou.mean": "miou.mean 40.65 %",
        "movement": "movement 0.0200",
        OBJECTIVE: "0.4866",
        "miou.night": "",
    }
