"""Who may know whom: the house of the design, kept by a test."""

from __future__ import annotations

import ast
import subprocess
import sys
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


def test_only_config_cli_and_the_sweep_know_hydra():
    assert {user for user in users_of("hydra") if not user.startswith("sweep/")} == {
        "config.py", "cli.py", "option_files.py",
    }  # fmt: skip


def test_only_tracking_knows_mlflow():
    assert all(room.startswith("tracking/") for room in users_of("mlflow"))


def test_only_the_sweep_knows_optuna_and_submitit_and_the_report_what_mattered():
    assert {user.split("/")[0] for user in users_of("submitit")} <= {"sweep"}
    assert {user for user in users_of("optuna") if not user.startswith("sweep/")} == {"reporting/space.py"}


def test_what_a_run_knows_of_its_sweep_is_files_and_no_library():
    known = {name for name in imports(SOURCE / "sweep/unit.py") if "recyclelora" in name}
    assert {name.split(".")[1] for name in known} == {"errors", "records", "storage"}


def test_a_sweeps_driver_never_imports_torch():
    code = "import recyclelora.sweep.main, recyclelora.commands.launch, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_reports_read_files_and_know_no_model():
    forbidden = ("torch", "lightning_fabric", "recyclelora.engine", "recyclelora.adapters", "recyclelora.config.build",
                 "recyclelora.training.run", "recyclelora.training.trainer", "recyclelora.data", "recyclelora.tracking")  # fmt: skip
    for path in (SOURCE / "reporting").glob("*.py"):
        assert not [n for n in imports(path) if n in forbidden or n.startswith(tuple(f + "." for f in forbidden))], path


def test_each_tracker_is_known_by_one_file_and_only_while_it_runs():
    assert users_of("tensorboard") == {"trackers/tensorboard.py"}
    assert users_of("wandb") == {"trackers/wandb.py"}
    for name in ("tensorboard", "wandb"):
        tree = ast.parse((SOURCE / f"trackers/{name}.py").read_text())
        at_once = {ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
        assert not [line for line in at_once if name in line.replace("recyclelora.trackers", "")], at_once


def test_adapters_and_backbones_know_nothing_of_the_project():
    for room in ("adapters", "backbones"):
        for path in (SOURCE / room).glob("*.py"):
            own = {name for name in imports(path) if name.startswith("recyclelora")}
            assert all(name.startswith(f"recyclelora.{room}") for name in own), (path, own)


def test_engine_does_not_know_adapters_backbones_or_configuration():
    for path in (SOURCE / "engine").glob("*.py"):
        forbidden = (
            "recyclelora.adapters",
            "recyclelora.models.backbones",
            "recyclelora.config.compose",
            "recyclelora.config.build",
        )
        assert not [name for name in imports(path) if name.startswith(forbidden)], path


def test_one_place_reads_pickled_weights_and_only_as_plain_tensors():
    loads = []
    for path in ROOMS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                loads.append((path.name, {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")))
    assert loads == [("weights.py", "True")]


def test_nothing_is_instantiated_by_name():
    assert not [p for p in ROOMS if "hydra.utils" in imports(p)]
    readers = {p.relative_to(SOURCE).as_posix() for p in ROOMS if "_target_" in p.read_text()}
    # refused, or compared with known names
    assert readers == {"cli.py", "option_files.py", "sweep/command.py", "sweep/executors.py", "sweep/samplers.py"}
