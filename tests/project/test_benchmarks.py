"""Benchmarks are run seldom: what they take from this project must still be there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from recyclelora.config.compose import home

SCRIPTS = sorted((home() / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_everything_imported_exists(script: Path):
    nodes = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.ImportFrom)]
    for node in nodes:
        if (node.module or "").split(".")[0] == "recyclelora":
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
