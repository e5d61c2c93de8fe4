"""A format from another package: the example, installed as a package manager would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from installing import install, install_project

from recyclelora.config.commands import EXPORT_FORMATS, ExportConfig
from recyclelora.config.compose import home
from recyclelora.exchange.exports.formats import writer
from recyclelora.system.errors import UserError
from recyclelora.system.plugins import installed

EXAMPLE = home() / "examples/npz_export"


def export(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(home() / "export.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_the_example_writes_and_verifies_a_run_and_may_be_replaced(finished: Path, tmp_path: Path):
    site = install_project(EXAMPLE, tmp_path / "site")
    for _ in range(2):
        done = export(site, f"run={finished}", "format=npz", f"output={tmp_path / 'out'}")
        assert done.returncode == 0, done.stderr
    assert "compared with the adapted model at 64x64" in done.stdout
    report = json.loads((tmp_path / "out/report.json").read_text())
    with np.load(tmp_path / "out/backbone.npz") as arrays:
        assert report["format"] == "npz" and report["arrays"] == len(arrays.files) > 10
    assert len((EXAMPLE / "src/npz_export/__init__.py").read_text().splitlines()) <= 60


def test_formats_of_installed_packages_are_listed(tmp_path: Path):
    site = install_project(EXAMPLE, tmp_path / "site")
    done = export(site, "run=x", "format=npy")
    assert done.returncode == 2 and "must be one of timm, peft, segmenter, onnx, npz (did you mean npz?)" in done.stderr


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [("npz", "json:nothing", "AttributeError.*mend the package"), ("npz", "json:__doc__", "must be callable")],
)
def test_a_broken_format_names_its_package(tmp_path, monkeypatch, name, entry, message):
    (tmp_path / "mine").mkdir()
    install(tmp_path / "mine", "mine", {"recyclelora.exports": {name: entry}}, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    installed.cache_clear()
    with pytest.raises(UserError, match=f"^package mine, entry point {name} = {entry}: {message}"):
        writer(ExportConfig(run="x", format=name).format)
    installed.cache_clear()


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_every_built_in_format_has_its_module(name: str):
    assert callable(writer(name))
