"""Who may know whom: the house of the design, kept by a test."""

from __future__ import annotations

import ast
from pathlib import Path

import recyclelora

SOURCE = Path(recyclelora.__file__).parent
ROOMS = sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def users_of(package: str) -> set[str]:
    return {
        path.relative_to(SOURCE).as_posix()
        for path in ROOMS
        if any(name == package or name.startswith(package + ".") for name in imports(path))
    }


def test_only_config_and_cli_know_hydra():
    assert users_of("hydra") == {"config.py", "cli.py"}


def test_only_tracking_knows_mlflow():
    assert users_of("mlflow") == {"tracking.py"}


def test_nothing_here_knows_optuna_or_submitit():
    assert users_of("optuna") | users_of("submitit") == set()


def test_adapters_and_backbones_know_nothing_of_the_project():
    for room in ("adapters", "backbones"):
        for path in (SOURCE / room).glob("*.py"):
            own = {name for name in imports(path) if name.startswith("recyclelora")}
            assert all(name.startswith(f"recyclelora.{room}") for name in own), (path, own)


def test_engine_does_not_know_adapters_backbones_or_configuration():
    for path in (SOURCE / "engine").glob("*.py"):
        forbidden = ("recyclelora.adapters", "recyclelora.backbones", "recyclelora.config", "recyclelora.build")
        assert not [name for name in imports(path) if name.startswith(forbidden)], path


def test_one_place_reads_pickled_weights_and_only_as_plain_tensors():
    loads = []
    for path in ROOMS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                loads.append((path.name, {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")))
    assert loads == [("weights.py", "True")]


def test_nothing_is_instantiated_by_name():
    built = [p for p in ROOMS if "hydra.utils" in imports(p) or "_target_" in p.read_text()]
    assert [p.name for p in built] == ["cli.py"]  # which refuses it
