"""CITATION.cff and the licence agree with the package's metadata."""

from __future__ import annotations

import tomllib

import yaml

from recyclelora.config.compose import home


def test_the_citation_names_this_version_and_licence():
    project = tomllib.loads((home() / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((home() / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert "Apache License" in (home() / "LICENSE").read_text()
