"""What version 0.1.0 left goes on: runs, a sweep and a logged model, made by that version, in ``0.1.0.tar.xz``.

In the archive a run with seed 0 is finished, one with seed 1 was stopped after its second step of four (``expected``
holds what the same version made of it undisturbed), and a grid of three trials lost its driver while the second ran.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, compose_config
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recyclelora.config.compose import home, register_schemas
from recyclelora.sweep.record import options_since, other_values, record
from recyclelora.system.errors import UserError
from recyclelora.training.run import Run

COMMAND = [*TINY, "data=gta2city", "data.augment.short_edges=[64]"]
THEN = ["data.augment.hue_half_open=false", "optimizer.reach_ends=false"]
"""Shipped options that have other values by now."""
REST = ["backbone.positions=laid_out", "adapter.mixed_precision=fold"]
"""The same of those that have no effect on these runs, but stand in a sweep's settings."""
PREFIX = "recyclelora-vit_tiny_test-gta2city-"
RUNS = {0: f"{PREFIX}994a4f48c7bbd880", 1: f"{PREFIX}59de275f5099afc0"}
CHANGING = ("seconds", "git", "peak_memory_mb")


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that 0.1.0 worked in, as if it had been on this machine."""
    with tarfile.open(Path(__file__).parent / "0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for path in tmp_path.rglob("*.json"):
        text = path.read_text()
        if "HOST" in text:
            path.write_text(text.replace("HOST", platform.node()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_a_stopped_run_goes_on_and_ends_as_that_version_would_have(left: Path):
    config = compose_config(left, *COMMAND, *THEN, "seed=1")
    Run.identify(config, None).execute()
    assert sorted(path.name for path in (left / "outputs/runs").iterdir()) == sorted(RUNS.values())
    assert "resuming after step 2 of 4" in (left / "outputs/runs" / RUNS[1] / "train.log").read_text()
    ours = result(left / "outputs/runs" / RUNS[1])
    for key, value in json.loads((left / "expected/seed_1.json").read_text()).items():
        assert key in CHANGING or ours[key] == value, key


def test_a_finished_run_is_found_and_not_trained_again(left: Path):
    run = left / "outputs/runs" / RUNS[0]
    before = (run / "result.json").read_bytes()
    config = compose_config(left, *COMMAND, *THEN)
    assert Run.identify(config, None).execute() == result(run)["objective"]
    assert sorted(path.name for path in (left / "outputs/runs").iterdir()) == sorted(RUNS.values())
    assert (run / "result.json").read_bytes() == before


def test_the_same_words_with_new_options_are_another_run_that_tells_how_to_find_the_first(left: Path):
    run = Run.identify(compose_config(left, *COMMAND), None)
    assert run.directory.path.name not in RUNS.values()
    assert run.remark is not None and run.remark.endswith(f"add: {' '.join(THEN)}")
    assert f"outputs/runs/{RUNS[0]} is the run of this command" in run.remark
    assert Run.identify(compose_config(left, *COMMAND, *THEN), None).remark is None


def test_a_sweep_without_its_code_goes_on_and_else_says_what_brings_the_earlier_options_back(left: Path):
    folder = left / "outputs/sweeps/ranks"
    stored = json.loads((folder / "study.json").read_text())
    moved: list[bool] = []

    def goes_on(*overrides: str) -> None:
        register_schemas()
        given = [text for text in stored["fixed"] if not text.startswith("adapter.main")]
        with initialize_config_dir(str(home() / "conf")):
            config = compose("train", [*given, "adapter.main.rank=4", *overrides], return_hydra_config=True)
        plain = OmegaConf.to_container(config, resolve=False)
        assert isinstance(plain, dict)
        plain.pop("hydra")
        about, since = {**stored, "fixed": [*overrides, *stored["fixed"]], "config": plain}, dict(options_since(config))
        moved.append(other_values(folder, about, since))
        record(folder, about, since)

    with pytest.raises(UserError) as error:
        goes_on()
    text = str(error.value)
    assert text.endswith(f"add: {' '.join([*REST, *THEN])}") and "ema_start" not in text
    with pytest.raises(UserError, match=r"trainer\.ema_start: was 0, now 3"):
        goes_on(*REST, *THEN, "trainer.ema_start=3")
    goes_on(*REST, *THEN)
    goes_on(*REST, *THEN)  # by now of this version
    assert moved[-2:] == [False, False]  # finished trials stay where they are in the grid
    with pytest.raises(UserError, match=r"optimizer\.reach_ends: was False, now True"):
        goes_on(*REST, THEN[0])


@pytest.mark.slow
def test_a_sweep_goes_on_where_its_driver_died(left: Path):
    overrides = [*COMMAND, "adapter.main.rank=2,3,4", "study=ranks", "trainer.max_steps=2", "trainer.eval_every=2"]
    folders = ["data.root=data", "output_dir=outputs", "cache=cache", "n_jobs=1"]
    sweep = left / "outputs/sweeps/ranks"
    before = {path: path.read_bytes() for path in sweep.glob("trial_*/result.json")}
    assert len(before) == 2
    done = subprocess.run(
        [sys.executable, home() / "train.py", "-m", *overrides, *folders],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 complete" in done.stdout
    assert len(list(sweep.glob("trial_*/result.json"))) == 3
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_without_its_code_an_unfinished_trial_goes_on_with_the_options_of_its_version(left: Path):
    sweep = left / "outputs/sweeps/ranks"
    shutil.rmtree(sweep / "snapshot")
    (sweep / "ledger/0001/unit_0/outcome.json").unlink(missing_ok=True)
    (sweep / "trial_0001-17a229f2e5d88d74/result.json").unlink()
    overrides = [*COMMAND, "adapter.main.rank=2,3,4", "study=ranks", "trainer.max_steps=2", "trainer.eval_every=2"]
    folders = ["data.root=data", "output_dir=outputs", "cache=cache", "n_jobs=1", "snapshot=off"]
    done = subprocess.run(
        [sys.executable, home() / "train.py", "-m", *overrides, *REST, *THEN, *folders],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial_0001: begun by an earlier version, and trained as then: " in " ".join(done.stdout.split())
    assert (sweep / "trial_0001-17a229f2e5d88d74/result.json").exists()  # the run that it was
    assert len(list(sweep.glob("trial_*/result.json"))) == 3


def test_a_logged_model_loads_and_predicts_the_same(left: Path):
    import mlflow

    model = mlflow.pyfunc.load_model(str(left / "model"))
    image = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    assert np.array_equal(model.predict(image), np.load(left / "expected/ids.npy"))
