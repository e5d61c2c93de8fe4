"""An adapter from another package: the example, installed as a package manager would, and what can go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import TINY

from recyclelora.config.compose import home
from recyclelora.config.plugins import conf_folders, own_adapters
from recyclelora.system.errors import UserError

EXAMPLE = home() / "examples/bitfit_adapter"


def install(source: Path, name: str, entry_points: dict[str, dict[str, str]], site: Path) -> None:
    """Lay a package out as in site-packages: a link to its sources, and the metadata that names its entry points."""
    site.mkdir(exist_ok=True)
    (site / source.name).symlink_to(source)
    metadata = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    sections = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in entry_points.items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(sections))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site folder that holds the example, with the entry points of its pyproject."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(EXAMPLE / "src/bitfit_adapter", project["name"], project["entry-points"], tmp_path / "site")
    return tmp_path / "site"


def command(script: str, folder: Path, site: Path | None, *overrides: str) -> subprocess.CompletedProcess[str]:
    paths = [str(site)] if site else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    arguments = [sys.executable, str(home() / script), *overrides]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


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
    assert misspelt.returncode == 2 and "Did you mean: 'norms'?" in misspelt.stderr


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
        ("dora", GOOD, "the adapter kind 'dora' is built in; give yours another name"),
        ("mine", "import not_there", "ModuleNotFoundError: No module named 'not_there'; mend the package"),
        ("mine", "Config = dict", "must be a dataclass with the fields kind and name"),
        ("mine", GOOD.replace('"mine"', '"other"'), "must have the fields kind = 'mine' and name, with a default"),
        ("mine", GOOD.replace("def method", "def methods"), r"must have a method\(\)"),
    ],
)
def test_broken_packages_are_named(tmp_path, monkeypatch, kind, source, message):
    (tmp_path / "mine_adapter").mkdir()
    (tmp_path / "mine_adapter/__init__.py").write_text(source)
    install(tmp_path / "mine_adapter", "mine", {"recyclelora.adapters": {kind: "mine_adapter:Config"}}, tmp_path / "s")
    monkeypatch.syspath_prepend(tmp_path / "s")
    monkeypatch.delitem(sys.modules, "mine_adapter", raising=False)
    with pytest.raises(UserError, match=f"^package mine, entry point {kind} = mine_adapter:Config: .*{message}"):
        own_adapters({"dora": object})
    sys.modules.pop("mine_adapter", None)


def test_only_installed_packages_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE / "src")  # importable, but not installed
    assert own_adapters({}) == {} and conf_folders() == ()
