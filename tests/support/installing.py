"""Packages laid out as a package manager would install them, for what finds them by their entry points."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from recyclelora.config.compose import home


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


def install_project(project: Path, site: Path) -> Path:
    """Install a project with its one package in ``src`` and the entry points of its pyproject; returns ``site``."""
    described = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    (package,) = (project / "src").iterdir()
    install(package, described["name"], described["entry-points"], site)
    return site


def command(script: str, folder: Path, site: Path | None, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run one of the commands with what ``site`` holds installed."""
    paths = [str(site)] if site else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    arguments = [sys.executable, str(home() / script), *overrides]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
