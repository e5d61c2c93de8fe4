"""An adapter from another package: the example, installed as a package manager would, and what can go wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import TINY
from installing import command, install, install_project

from recyclelora.config.compose import home
from recyclelora.system.errors import UserError
from recyclelora.system.plugins import conf_folders, installed, option_plugins, plugins

EXAMPLE = home() / "examples/bitfit_adapter"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site folder that holds the example, with the entry points of its pyproject."""
    return install_project(EXAMPLE, tmp_path / "site")


@pytest.mark.slow
def test_the_example_trains_from_the_command_line(tmp_path, gta2city, site):
    places = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={tmp_path / 'data'}"]
    plain = [o for o in TINY if not o.startswith("adapter.")]
    done = command("train.py", tmp_path, site, *places, *plain, "adapter=bitfit_norms", "adapter.lr_mult=2")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "outputs/runs").glob("bitfit_norms-*/result.json")
    result = json.loads(path.read_text())
    block = 3 * 32 + 32 + 4 * 32 + 32 + 2 * 2 * 32  # biases of four linear layers, two norms whole
    assert result["params"]["backbone_trainable"] == 4 * block + 32  # and the patch embedding's bias
    again = command("evaluate.py", tmp_path, None, f"run={path.parent}")
    assert again.returncode == 2 and "Traceback" not in again.stderr
    assert "adapter.kind=bitfit is not known here; install the package it comes from" in again.stderr


def test_options_of_the_example_are_checked_like_any_other(tmp_path, site):
    shown = command("train.py", tmp_path, site, "adapter=bitfit", "--cfg", "job", "--package", "adapter")
    assert "kind: bitfit\nname: bitfit\nlr_mult: 1.0\nnorms: false\n" in shown.stdout  # without any file
    bad = command("train.py", tmp_path, site, "adapter=bitfit", "adapter.lr_mult=0", "data=streets")
    assert bad.returncode == 2 and "adapter.lr_mult=0.0: must be above 0" in bad.stderr
    misspelt = command("train.py", tmp_path, site, "adapter=bitfit", "adapter.nroms=true")
    assert misspelt.returncode == 2 and "did you mean norms?" in misspelt.stderr


GOOD = """
from dataclasses import dataclass
@dataclass
class Config:
    kind: str = "mine"
    name: str = "mine"
    def method(self): ...
"""


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        ("dora", GOOD, "'dora' is built in; give yours another name"),
        ("mine", "import not_there", "ModuleNotFoundError: No module named 'not_there'; mend the package"),
        ("mine", "Config = dict", "must be a dataclass with the fields kind and name"),
        ("mine", GOOD.replace('"mine"', '"other"'), "must have the fields kind = 'mine' and name, with a default"),
        ("mine", GOOD.replace("def method", "def methods"), r"must have a method method\(\)"),
    ],
)
def test_broken_packages_are_named(tmp_path, monkeypatch, kind, source, message):
    offer(tmp_path, monkeypatch, "recyclelora.adapters", kind, source)
    with pytest.raises(UserError, match=f"^package mine, entry point {kind} = mine_package:Config: .*{message}"):
        option_plugins("recyclelora.adapters", {"dora"}, "method")


def test_a_seam_of_functions_asks_for_no_options(tmp_path, monkeypatch):
    offer(tmp_path, monkeypatch, "recyclelora.metrics", "mine", "def Config(): return 3")
    assert plugins("recyclelora.metrics", ())["mine"]() == 3
    with pytest.raises(UserError, match="'mine' is built in"):
        plugins("recyclelora.metrics", {"mine": 1})
    with pytest.raises(UserError, match=r"must have a method write\(\)"):
        plugins("recyclelora.metrics", (), "write")


def test_what_a_seam_cannot_call_is_refused(tmp_path, monkeypatch):
    offer(tmp_path, monkeypatch, "recyclelora.metrics", "mine", "Config = 3")
    with pytest.raises(UserError, match="entry point mine = mine_package:Config: must be callable"):
        plugins("recyclelora.metrics", ())


def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, name: str, source: str) -> None:
    """Install a package whose module holds ``Config``."""
    (tmp_path / "mine_package").mkdir()
    (tmp_path / "mine_package/__init__.py").write_text(source)
    install(tmp_path / "mine_package", "mine", {group: {name: "mine_package:Config"}}, tmp_path / "s")
    monkeypatch.syspath_prepend(tmp_path / "s")
    monkeypatch.delitem(sys.modules, "mine_package", raising=False)


@pytest.fixture(autouse=True)
def looked_up_anew():
    installed.cache_clear()
    yield
    installed.cache_clear()
    sys.modules.pop("mine_package", None)


def test_only_installed_packages_count(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE / "src")  # importable, but not installed
    assert option_plugins("recyclelora.adapters", {}, "method") == {} and conf_folders() == ()
