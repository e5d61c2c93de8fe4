"""Every signal that asks to stop, at every stage of a run's life: to its process or to its whole group."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY
from mlflow_server import free_port
from waiting import wait_for

from recyclelora.config.compose import home

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)

DRIVER = """
import os, sys, time
from pathlib import Path

stage, marker = sys.argv[1], Path(sys.argv[2])
del sys.argv[1:3]

def reached():
    marker.touch()
    until = time.monotonic() + 60
    while not marker.with_suffix(".sent").exists() and time.monotonic() < until:
        time.sleep(0.02)

def waits(owner, name):
    inner = getattr(owner, name)
    def waiting(*args, **options):
        if not marker.exists():
            reached()
        with marker.with_suffix(".calls").open("a") as calls:
            calls.write("1")
        return inner(*args, **options)
    setattr(owner, name, waiting)

if stage != "imports":
    from recyclelora.evaluation import evaluator
    from recyclelora.runs import checkpoint
    from recyclelora.training import preparation, run, trainer
    if stage == "decomposition":
        waits(run, "build_model")
    elif stage == "files":
        waits(preparation, "unusable_files")
    elif stage == "training":
        waits(trainer.Trainer, "log")
    elif stage == "saving":
        waits(checkpoint, "write_bytes")
    elif stage == "evaluation":
        waits(evaluator.Evaluator, "scores")
else:
    sys.modules["hydra.core.marker"] = None
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "hydra" and not marker.exists():
                reached()
    sys.meta_path.insert(0, Finder())

from recyclelora.commands.train import main
main()
"""
STAGES = ("imports", "files", "decomposition", "training", "saving", "evaluation")
LATE = ("training", "saving", "evaluation")
"""Something has been learnt."""


@pytest.fixture
def options(tmp_path: Path, gta2city: Path) -> list[str]:
    folders = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={tmp_path / 'data'}"]
    return [*TINY, *folders, "trainer.eval_every=2", "trainer.checkpoint_every=1"]


@pytest.fixture
def start(tmp_path: Path, options: list[str]):
    """Start a run that waits at a stage, and wait until it is there."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    started: list[subprocess.Popen[str]] = []

    def starting(stage: str, workers: int = 0, *more: str, **environment: str) -> subprocess.Popen[str]:
        marker = tmp_path / f"reached{len(started)}"
        process = subprocess.Popen(
            [sys.executable, str(script), stage, str(marker), *options, f"trainer.num_workers={workers}", *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, cwd=home(),
        )  # fmt: skip
        started.append(process)
        if environment.get("RANK", "0") != "0":
            return process  # the one before waits for it
        wait_for(lambda: marker.exists() or process.poll() is not None, 240)
        assert marker.exists(), process.communicate()[1]
        return process

    yield starting
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def go_on(process: subprocess.Popen[str]) -> None:
    """Let a run leave the stage at which it waits: all signals are sent."""
    Path(process.args[3]).with_suffix(".sent").touch()


def stopped(process: subprocess.Popen[str], number: signal.Signals, *, group: bool) -> str:
    """Signal a process, or its group; returns what it said on stderr when it ended."""
    (os.killpg if group else os.kill)(process.pid, number)
    go_on(process)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err, err
    return err


def check(tmp_path: Path, start, stage: str, number: signal.Signals, *, group: bool, workers: int) -> None:
    err = stopped(start(stage, workers), number, group=group)
    said = [line for line in err.splitlines() if line.startswith("train: ")]
    assert len(said) == 1, err
    runs = list((tmp_path / "outputs/runs").glob("*"))
    if stage in LATE:
        (run,) = runs
        assert f"stopped by signal {number.value}" in said[0] and "goes on from there" in said[0]
        assert (run / "checkpoints/last").read_text().startswith("step_")
        assert not list(run.rglob(".*.tmp"))
        assert json.loads((run / "ended.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("stage", "number", "workers"),
    [("saving", signal.SIGTERM, 2), ("evaluation", signal.SIGHUP, 2), ("imports", signal.SIGINT, 0)],
)
def test_a_signal_to_the_whole_group_is_the_runs_to_heed(tmp_path: Path, start, stage, number, workers):
    check(tmp_path, start, stage, number, group=True, workers=workers)


WAYS = list(itertools.product((False, True), (0, 2)))
"""To the process or to its group, and so many data workers."""
CELLS = [
    (stage, number)
    for row, stage in enumerate(STAGES)
    for column, number in enumerate(SIGNALS)
    if (row + column) % 2 == 0 and (stage != "imports" or number == signal.SIGINT)  # others end what has nothing yet
]
GRID = [(*cell, *WAYS[place % len(WAYS)]) for place, cell in enumerate(CELLS)]
"""A chessboard of signals and stages: half of the signals at every stage, each signal at half of the stages."""


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "number", "group", "workers"), GRID)
def test_every_signal_at_every_stage(tmp_path: Path, start, stage, number, group, workers):
    check(tmp_path, start, stage, number, group=group, workers=workers)


@pytest.mark.slow
@pytest.mark.parametrize("stage", LATE)
def test_what_was_stopped_goes_on(tmp_path: Path, start, options: list[str], stage):
    stopped(start(stage, 2), signal.SIGTERM, group=True)
    done = subprocess.run([sys.executable, home() / "train.py", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs/runs").iterdir()
    assert json.loads((run / "result.json").read_text())["steps"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_of_two_processes_a_signal_to_one_stops_both_at_this_image(tmp_path: Path, start, told: int):
    """While they evaluate; together they then score what is left, and end as undisturbed ones."""

    def pair(*more: str) -> list[subprocess.Popen[str]]:
        launch = {"TORCHELASTIC_RUN_ID": "pair", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        launch |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        # three images in each set: both processes have one in the first round
        options = ("trainer.devices=2", "trainer.accelerator=cpu", "data.source_val.dataset=cityscapes", *more)
        processes = [start("evaluation", 0, *options, **launch, RANK=rank, LOCAL_RANK=rank) for rank in "10"][::-1]
        markers = [Path(process.args[3]) for process in processes]
        wait_for(lambda: all(marker.exists() for marker in markers), 240)
        return processes

    def ended(processes: list[subprocess.Popen[str]]) -> tuple[list[int], str, list[int]]:
        for process in processes:
            go_on(process)
        said = "".join(process.communicate(timeout=300)[1] for process in processes)
        scored = [Path(process.args[3]).with_suffix(".calls").stat().st_size for process in processes]
        return [process.returncode for process in processes], said, scored

    both = pair()
    os.kill(both[told].pid, signal.SIGTERM)
    codes, said, first = ended(both)
    assert codes[told] == 128 + signal.SIGTERM and codes[1 - told] == 128, said
    assert first == [1, 1] and "Traceback" not in said, said
    assert f"stopped by {'a signal to another of its processes' if told else 'signal 15'} after step 2" in said
    codes, said, rest = ended(pair())
    assert codes == [0, 0], said
    codes, said, whole = ended(pair(f"output_dir={tmp_path / 'undisturbed'}"))
    assert codes == [0, 0], said
    assert [a + b for a, b in zip(first, rest, strict=True)] == whole
    cut, undisturbed = (
        json.loads(next((tmp_path / folder).glob("runs/*/result.json")).read_text())
        for folder in ("outputs", "undisturbed")
    )
    assert cut["selection"] == undisturbed["selection"] and cut["steps"] == 4


@pytest.mark.slow
def test_two_quick_ctrl_cs_during_a_save_leave_no_half_one(tmp_path: Path, start):
    process = start("saving")
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    go_on(process)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Ctrl-C again leaves at once" in err
    (run,) = (tmp_path / "outputs/runs").iterdir()
    assert not list(run.rglob(".*.tmp")) and (run / "checkpoints/last").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_step(tmp_path: Path, start):
    process = start("saving", 2)
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    go_on(process)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in err, err
    assert "a data worker was killed" in err
    (run,) = (tmp_path / "outputs/runs").iterdir()
    assert (run / "checkpoints/last").exists() and not list(run.rglob(".*.tmp"))
