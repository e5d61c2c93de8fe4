"""Who may know whom: the rooms of the package, kept by a test."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import recyclelora

SOURCE = Path(recyclelora.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

MAY_IMPORT = {
    "system": "",
    "drawing": "system",
    "adapters": "system",
    "data": "system drawing",
    "models": "system",
    "config": "system adapters data models",
    "runs": "system data config",
    "evaluation": "system drawing data models config runs",
    "sweep": "system config runs",
    "tracking": "system config runs evaluation sweep",
    "training": "system drawing data models config runs evaluation tracking",
    "reports": "system drawing adapters data models config runs evaluation sweep tracking",
    "exchange": "system adapters data models config runs evaluation",
    "commands": "system data config runs evaluation sweep tracking training reports exchange",
}
"""Room -> the rooms below it that it may import. ``__main__.py`` files are doors: they start what ``commands`` has."""


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
        for path in FILES
        if any(name == package or name.startswith(package + ".") for name in imports(path))
    }


def rooms_of(package: str) -> set[str]:
    return {user.split("/")[0] for user in users_of(package)}


def test_the_package_has_these_rooms_and_no_other_doors():
    doors = {path.name for path in SOURCE.iterdir() if path.name != "__pycache__"}
    assert doors == MAY_IMPORT.keys() | {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_rooms_below_it(room: str):
    allowed = {*MAY_IMPORT[room].split(), room}
    for path in sorted((SOURCE / room).rglob("*.py")):
        if path.name != "__main__.py":
            known = {name.split(".")[1] for name in imports(path) if name.startswith("recyclelora.")}
            assert known <= allowed, path


def test_no_room_knows_itself_through_others():
    graphlib.TopologicalSorter({room: below.split() for room, below in MAY_IMPORT.items()}).prepare()


def test_timm_is_imported_by_the_file_that_knows_what_it_drags_along():
    assert users_of("timm") == {"models/timm_library.py"}


def test_the_renderer_of_streets_knows_nothing_else():
    for path in sorted((SOURCE / "data/streets").glob("*.py")):
        own = {name for name in imports(path) if name.startswith("recyclelora")}
        assert all(name.startswith("recyclelora.data.streets") or name == "recyclelora.data" for name in own), path


def test_few_files_know_hydra():
    assert {user for user in users_of("hydra") if not user.startswith("sweep/")} == {
        "config/compose.py", "commands/clear_line.py", "commands/launch.py", "config/option_files.py",
    }  # fmt: skip


def test_only_tracking_knows_mlflow():
    assert rooms_of("mlflow") == {"tracking"}


def test_only_the_sweep_knows_optuna_and_submitit_and_the_report_what_mattered():
    assert rooms_of("submitit") <= {"sweep"}
    assert {user for user in users_of("optuna") if not user.startswith("sweep/")} == {"reports/space.py"}


def test_what_a_run_knows_of_its_sweep_is_files_and_no_library():
    known = {name for name in imports(SOURCE / "runs/unit.py") if "recyclelora" in name}
    assert {name.split(".")[1] for name in known} == {"system"}


def test_a_sweeps_driver_never_imports_torch():
    code = "import recyclelora.sweep.main, recyclelora.commands.launch, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_reports_of_runs_read_files_and_know_no_model():
    forbidden = ("torch", "lightning_fabric", "recyclelora.models", "recyclelora.adapters", "recyclelora.config.build",
                 "recyclelora.training", "recyclelora.data", "recyclelora.tracking")  # fmt: skip
    for path in (SOURCE / "reports").glob("*.py"):
        assert not [n for n in imports(path) if n in forbidden or n.startswith(tuple(f + "." for f in forbidden))], path


def test_each_tracker_is_known_by_one_file_and_only_while_it_runs():
    assert users_of("tensorboard") == {"tracking/tensorboard.py"}
    assert users_of("wandb") == {"tracking/wandb.py"}
    for name in ("tensorboard", "wandb"):
        tree = ast.parse((SOURCE / f"tracking/{name}.py").read_text())
        at_once = {ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
        assert not [line for line in at_once if name in line.replace("recyclelora.tracking", "")], at_once


def test_backbones_and_decoders_know_nothing_of_each_other():
    for room, other in (("backbones", "decoders"), ("decoders", "backbones")):
        for path in (SOURCE / "models" / room).glob("*.py"):
            assert not [name for name in imports(path) if name.startswith(f"recyclelora.models.{other}")], path


def test_one_place_reads_pickled_weights_and_only_as_plain_tensors():
    loads = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                loads.append((path.name, {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")))
    assert loads == [("weights.py", "True")]


def test_nothing_is_instantiated_by_name():
    assert not [p for p in FILES if "hydra.utils" in imports(p)]
    readers = {p.relative_to(SOURCE).as_posix() for p in FILES if "_target_" in p.read_text()}
    # refused, or compared with known names
    assert readers == {
        "commands/launch.py", "config/option_files.py", "sweep/command.py", "sweep/executors.py", "sweep/samplers.py",
    }  # fmt: skip


def test_module_names_of_the_first_release_still_start_and_import():
    names = ("train", "evaluate", "predict", "export", "analyze", "inspect_data", "report", "prepare", "repeat",
             "import_checkpoint", "cache", "trackers", "tracking", "sweep")  # fmt: skip
    code = f"""
import importlib.util
for name in {names}:
    found = importlib.util.find_spec("recyclelora." + name)
    assert found is not None, name
    assert not found.submodule_search_locations or importlib.util.find_spec("recyclelora." + name + ".__main__"), name
from recyclelora.analysis.layers import changed_layers
from recyclelora.analysis.measure import measure
from recyclelora.tracking.pyfunc import _load_pyfunc
"""
    subprocess.run([sys.executable, "-c", code], check=True)
