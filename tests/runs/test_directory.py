"""Which directories may be those of one run, and which are finished."""

import ast
from pathlib import Path

import pytest

import recyclelora
from recyclelora.runs.directory import CONFIG, RESULT, RunDirectory, is_finished, is_run, not_a_run

SOURCE = Path(recyclelora.__file__).parent


@pytest.mark.parametrize("name", ["soma-tiny-gta2city-{}", "sweep/trial_0007-{}", "sweep/trial_0007-{}/seed_1"])
def test_runs_alike_differ_in_their_signatures_alone(tmp_path: Path, name: str):
    run = RunDirectory(tmp_path / name.format(16 * "0"))
    assert run.alike() == []
    for sign in (16 * "f", "no_signature", "0" * 15):
        (tmp_path / name.format(sign)).mkdir(parents=True)
    (tmp_path / name.format(16 * "f")).with_name("another").mkdir()
    assert run.alike() == [RunDirectory(tmp_path / name.format(16 * "f"))]


def test_a_run_is_known_by_its_configuration_and_its_end_by_its_result(tmp_path: Path):
    assert not is_run(tmp_path) and not is_finished(tmp_path) and RunDirectory(tmp_path).result() is None
    (tmp_path / CONFIG).write_text("seed: 0\n")
    assert is_run(tmp_path) and not is_finished(tmp_path)
    (tmp_path / RESULT).write_text('{"objective": null, "seconds": 1.0, "steps": 4, "params": {}}')
    assert is_finished(tmp_path) and RunDirectory(tmp_path).result()["steps"] == 4


def test_what_is_no_run_says_which_runs_are_meant(tmp_path: Path):
    for name in (
        "five/trial_0000-a",
        "five/trial_0001-b",
        "five/trial_0002-c/seed",
        "five/trial_0003-d",
        "runs/lora-x",
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / CONFIG).touch()
    five, why = tmp_path / "five", f"not a run directory (it has no {CONFIG})"
    inside = ", ".join(str(five / trial) for trial in ("trial_0000-a", "trial_0001-b", "trial_0003-d"))
    assert not_a_run(five) == f"{five}: {why}; runs in it: {inside}, ..."
    slip = tmp_path / "runs/lora-y"
    assert not_a_run(slip) == f"{slip}: {why}; runs near it: {tmp_path / 'runs/lora-x'}"
    assert not_a_run(tmp_path / "nowhere/x") == f"{tmp_path / 'nowhere/x'}: {why}"


def test_no_other_file_names_what_lies_in_a_run_directory():
    """Docstrings may; code asks :mod:`recyclelora.runs.directory`."""
    names = {
        "config.yaml", "run.json", "result.json", "metrics.jsonl", "train.log", "ended.json", "adapter.safetensors",
        "checkpoints", "unreadable.json",
    }  # fmt: skip
    own = SOURCE / "runs/directory.py"
    for path in SOURCE.rglob("*.py"):
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert path == own or not texts & names, path
