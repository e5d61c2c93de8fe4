"""docs/config.md is what the code says, and the generator knows every group, option and key."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Optional

import pytest

from recyclelora.adapters.config import ADAPTERS
from recyclelora.adapters.low_rank.config import BranchConfig
from recyclelora.config.compose import home
from recyclelora.config.run import Config
from recyclelora.config.training import TrainerConfig
from recyclelora.models.decoders.config import DECODERS


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_config", home() / "docs/generate_config.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(generator):
    assert generator.PAGE.read_text() == generator.page(), "run: python docs/generate_config.py"


def test_every_group_and_option_is_on_the_page(generator):
    page = generator.PAGE.read_text()
    # conf/sweeps is a link
    in_groups = [path for path in home().glob("conf/*/**/*.yaml") if not path.is_relative_to(home() / "conf/sweeps")]
    options = {path.relative_to(home()) for path in [*in_groups, *home().glob("sweeps/*.yaml")]}
    assert {o.parent.as_posix().removeprefix("conf/") for o in options} == set(generator.GROUPS)
    for option in options:
        assert f"[`{option.stem}`](../{option.as_posix()})" in page


def test_every_key_is_on_the_page(generator):
    page = generator.PAGE.read_text()
    for kind in [Config, *ADAPTERS.values(), *DECODERS.values()]:
        for field in dataclasses.fields(kind):
            assert f"| `{field.name}` |" in page or f"## `{field.name}`" in page or field.name == "kind", field.name


def test_every_key_has_a_meaning(generator):
    kinds = [
        Config,
        *(kind for group in generator.GROUPS.values() for kind in group),
        *generator.COMMANDS.values(),
    ]
    kinds += [inner for kind in kinds for _, inner in generator._inner(kind)]
    missing = {
        f"{kind.__name__}.{field.name}"
        for kind in kinds
        for field in dataclasses.fields(kind)
        if field.name not in generator.meanings(kind) and field.name not in ("kind", *generator.GROUPS)
    }
    assert not missing


def test_allowed_values_come_from_the_checks(generator):
    assert generator.allowed(BranchConfig)["lr_mult"] == "above 0"
    assert generator.allowed(BranchConfig)["rank"] == "at least 1"
    assert "`rrqr_minor`" in generator.allowed(BranchConfig)["init"]
    assert generator.allowed(ADAPTERS["dora"])["weight_decay"] == "at least 0"  # a check of its base class
    trainer = generator.allowed(TrainerConfig)  # checks in loops over names
    assert (trainer["max_steps"], trainer["num_workers"], trainer["eval_images"]) == (
        "at least 1", "at least 0", "at least 1",
    )  # fmt: skip


def test_head_comments_and_types_in_words(generator, tmp_path: Path):
    option = tmp_path / "x.yaml"
    option.write_text("# @package _global_\n# python train.py a=b -m\n# One | two\n#   three.\nname: x\n# not this\n")
    assert generator.head_comment(option) == "`python train.py a=b -m`. One \\| two three."

    @dataclass
    class Kind:
        """Of ``x``."""

        x: Optional[list[int]] = None  # noqa: UP045
        """of ``this | that``,
        or none"""

    assert (
        generator._table(Kind).splitlines()[2]
        == "| `x` | `list[int]` or `null` | `null` |  | of `this \\| that`, or none |"
    )
    assert generator._described(Kind) == "Of `x`.\n"
