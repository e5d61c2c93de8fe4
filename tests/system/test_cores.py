"""How many processors there are, and how torch's threads wait on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recyclelora.system import cores
from recyclelora.system.cores import available_cores, patient_threads

THREADS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path: Path):
    """Eight processors, no control groups, and nothing set by the user."""
    monkeypatch.setattr(cores, "_granted_cores", lambda: 8)
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroups")
    monkeypatch.setattr(cores, "OWN_CGROUPS", tmp_path / "own")
    for name in THREADS:
        monkeypatch.setenv(name, "")  # what the code sets is undone after the test
        monkeypatch.delenv(name)
    return tmp_path


def groups(machine: Path, own: str, files: dict[str, str]) -> None:
    (machine / "own").write_text(own)
    for name, text in files.items():
        path = machine / "cgroups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 8),
        ("0::/job/step\n", {"job/cpu.max": "200000 100000\n", "job/step/cpu.max": "max 100000\n"}, 2),
        ("2:cpuset:/\n1:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        (
            "1:cpu,cpuacct:/docker/1\n0::/\n",  # inside the container its own group is the root
            {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        ("0::/\n", {}, 8),
    ],
)
def test_a_quota_of_time_counts_like_so_many_processors(machine, own: str, files: dict[str, str], expected: int):
    groups(machine, own, files)
    assert available_cores() == expected


def test_where_there_are_no_control_groups_all_count():
    assert available_cores() == 8


def test_threads_sleep_while_they_wait_and_are_as_many_as_torch_would_take():
    patient_threads()
    assert os.environ["GOMP_SPINCOUNT"] == "10000" and "OMP_NUM_THREADS" not in os.environ


def test_a_quota_bounds_the_threads(machine):
    groups(machine, "0::/\n", {"cpu.max": "200000 100000\n"})
    patient_threads()
    assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize("name", THREADS)
def test_what_the_user_has_set_stays(machine, monkeypatch, name: str):
    groups(machine, "0::/\n", {"cpu.max": "200000 100000\n"})
    monkeypatch.setenv(name, "7")
    patient_threads()
    assert os.environ[name] == "7" and ("GOMP_SPINCOUNT" in os.environ) == (name in THREADS[1::2])


def test_a_command_says_so_before_its_task_imports_torch():
    code = """
import os, sys
from recyclelora.commands import start
def task(config, trial):
    print(os.environ["GOMP_SPINCOUNT"], "torch" in sys.modules)
sys.argv = ["train.py", "experiment=demo"]
start("train", task)
"""
    unset = {key: value for key, value in os.environ.items() if key not in THREADS}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=unset)
    assert done.stdout.splitlines()[-1] == "10000 False"
