"""How the words of a search space are read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from recyclelora.commands.launch import Job
from recyclelora.sweep.planning import validate
from recyclelora.sweep.space import grid_space, search_space
from recyclelora.system.errors import UserError


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("x=int(interval(4,32))", IntDistribution(4, 32)),
        ("x=tag(log,int(interval(4,32)))", IntDistribution(4, 32, log=True)),
        ("x=interval(4,32)", FloatDistribution(4.0, 32.0)),
        ("x=range(1,9,2)", IntDistribution(1, 7, step=2)),
        ("x=tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("x=choice(a,b,a)", CategoricalDistribution(["a", "b"])),
        ("x=choice(1e-3,0.001,2)", CategoricalDistribution([1e-3, 2])),
    ],
)
def test_what_a_parameter_varies_over(text: str, distribution: object):
    assert search_space([text], {}, {}, None).distributions == {"x": distribution}


def test_repeated_values_are_said():
    space = grid_space(["lr=1e-3,0.001,1e-4", "seed=1,2"], {}, None)
    assert space.grid() == [{"lr": lr, "seed": seed} for lr in ("0.001", "0.0001") for seed in ("1", "2")]
    assert space.remarks == ["lr: 0.001 are there more than once; taken once"]


@pytest.mark.parametrize("text", ["x=tag(log,range(1,100))", "x=tag(log,choice(1,10))", "x=tag(lin,interval(1,2))"])
def test_a_tag_that_would_be_passed_over_is_refused(text: str):
    with pytest.raises(UserError, match="tag"):
        search_space([text], {}, {}, None)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("adapter.main.rank=interval(4,32)", "write adapter.main.rank=int(interval(4,32))"),
        ("adapter.main.rank=tag(log,interval(4,32))", "write adapter.main.rank=tag(log,int(interval(4,32)))"),
    ],
)
def test_an_interval_of_fractions_for_an_integer_says_what_to_write(text: str, advice: str):
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from recyclelora.config.compose import home, register_schemas

    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", ["data=streets", "study=s"], RunMode.MULTIRUN)
        task: Any = SimpleNamespace(
            function=Job("train", lambda config, trial: None),
            config=config,
            context=SimpleNamespace(config_loader=loader),
        )
        with pytest.raises(UserError) as refusal:
            validate(search_space([text], {}, {}, loader), task)
    assert advice in str(refusal.value)
