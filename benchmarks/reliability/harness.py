"""Real processes at the price of a fork: torch and the rest are imported once, then every child runs and dies alone.

A killed child is a killed process to everything on disk; only the seconds of start-up are saved.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

import recyclelora.training.run
from recyclelora.commands.clear_line import one_clear_line
from recyclelora.config.compose import home, register_schemas, typed
from recyclelora.config.run import Config
from recyclelora.runs.metrics_log import TIMINGS

HERE = Path(__file__).resolve().parent
DEADLINE = 300.0
"""Seconds after which a child counts as hanging."""

TINY = [
    "backbone=vit_tiny_test", "decoder=linear", "data=streets", "tracking=none", "adapter.main.rank=4",
    "adapter.sub.rank=2", "data.augment.crop=[64,64]", "data.augment.short_edges=[64]", "data.sources.0.subset=4",
    "data.source_val.subset=1", "data.targets=[{dataset: streets, split: night, name: night, subset: 1}]",
    "trainer.batch_size=2", "trainer.num_workers=0", "trainer.log_every=1", "trainer.eval_images=null",
    "trainer.num_figures=0",
]  # fmt: skip
"""Overrides of a run on the project's own streets that takes a second or two."""


def composed(folder: Path, *overrides: str, cache: Path | None = None) -> Config:
    """A tiny run's configuration with everything below ``folder``, or with a cache of its own."""
    config = copy.deepcopy(_composed(overrides))
    config.output_dir, config.cache = str(folder / "outputs"), str(cache or folder / "cache")
    config.data.root = str(folder / "data")
    return config


@lru_cache
def _composed(overrides: tuple[str, ...]) -> Config:
    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        config: Config = typed(compose("train", [*TINY, *overrides]))
    return config


def train(config: Config) -> None:
    """What ``train.py`` does with a configuration."""
    recyclelora.training.run.Run.identify(config, None).execute()


def run_directory(folder: Path) -> Path:
    """The only run below a folder."""
    (found,) = (folder / "outputs/runs").iterdir()
    return found


@dataclass(frozen=True)
class Child:
    """A forked process; what it says is in ``log``."""

    pid: int
    log: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, deadline: float = DEADLINE) -> int | None:
        """Its exit code, negative for a signal; None where it had to be killed at the deadline."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        self.kill()
        os.waitpid(self.pid, 0)
        return None

    def text(self) -> str:
        """Everything it printed."""
        return self.log.read_text(errors="replace")


def spawn(log: Path, task: Callable[..., object], *arguments: Any) -> Child:
    """Run a task in a process of its own, as a command would: mistakes become one line and exit code 2."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, log)
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        # plain objects on the descriptors: a test runner's own would keep what is printed
        sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        with one_clear_line("child"):
            task(*arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def warmed(folder: Path, *overrides: str) -> Path:
    """A cache with everything that a tiny run renders; returns it."""
    child = spawn(folder / "warm.log", train, composed(folder / "warm", *overrides))
    assert child.wait() == 0, child.text()
    return folder / "warm/cache"


def ending(run: Path) -> dict[str, Any]:
    """All that a finished run leaves, without times: equal for two runs that computed the same, bit for bit."""
    result = json.loads((run / "result.json").read_text())
    state = json.loads(max(run.glob("checkpoints/step_*/state.json")).read_text())
    timed = ("seconds", "peak_memory_mb", "git")  # somebody may commit while runs are killed
    points = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    checkpoints = sorted(path.parent.name for path in run.glob("checkpoints/step_*/manifest.json"))
    last = run / "checkpoints" / checkpoints[-1]
    return {
        "result": {key: value for key, value in result.items() if key not in timed},
        "state": {key: value for key, value in state.items() if key not in timed},
        "points": [{key: value for key, value in point.items() if key not in TIMINGS} for point in points],
        "adapter": (run / "adapter.safetensors").read_bytes(),
        "tensors": {path.name: path.read_bytes() for path in sorted(last.glob("*.safetensors"))},
        "pointers": {path.name: path.read_text() for path in (run / "checkpoints").iterdir() if path.is_file()},
    }


def about_the_machine() -> dict[str, Any]:
    """What a reader has to know beside the figures."""
    return {"python": platform.python_version(), "torch": torch.__version__, "system": platform.system()}


def command(measure: Callable[[int, int], dict[str, Any]], name: str, count: int) -> None:
    """The command line of a figure: ``--seed`` and ``--count``; writes ``<name>.json`` beside the scripts."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=count, help="default: %(default)s, the full campaign")
    parser.add_argument("--json", type=Path, default=HERE / f"{name}.json", help="default: %(default)s")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    began = time.monotonic()
    figures = measure(options.seed, options.count)
    result = {
        "seed": options.seed, "count": options.count, **figures,
        "minutes": round((time.monotonic() - began) / 60, 1), **about_the_machine(),
    }  # fmt: skip
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
