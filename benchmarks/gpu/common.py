"""What the parts share: their options, their figures, and the project's own commands."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / ".gpu" / "dinov2_small.safetensors"

SMALL = [
    "backbone=vit_tiny_test", "decoder=linear", "data.augment.crop=[64,64]", "data.augment.short_edges=[64,96]",
    "data.source_val.subset=2", "data.targets=[{dataset: streets, split: day, subset: 2}]", "trainer.num_figures=0",
]  # fmt: skip
"""A run of the dry mode: seconds on a CPU."""


def options(doc: str | None, **more: type) -> argparse.Namespace:
    """``--dry``, ``--output`` and what else a part wants."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="on the CPU, in miniature")
    parser.add_argument("--output", type=Path, required=True)
    for name, kind in more.items():
        parser.add_argument(f"--{name}", type=kind)
    return parser.parse_args()


class Figures(dict[str, Any]):
    """Figures that are stored whenever one is added, so that a part that is ended has told what it knew."""

    def __init__(self, output: Path, **first: Any) -> None:
        super().__init__(first)
        self.output = output

    def add(self, **more: Any) -> None:
        """Keep and print some."""
        self.update(more)
        print(json.dumps(more), flush=True)
        self.output.write_text(json.dumps(self, indent=2) + "\n")

    def attempt(self, name: str, action: Callable[[], Any]) -> None:
        """Keep what an action returns, or why it could not."""
        try:
            self.add(**{name: action()})
        except Exception as error:  # the other figures of this part do not depend on it
            self.add(**{name: {"error": f"{type(error).__name__}: {str(error)[:400]}"}})

    def finish(self) -> None:
        """End the part; as failed if one of its figures is."""
        failed = [name for name, found in self.items() if isinstance(found, dict) and "error" in found]
        if failed:
            sys.exit(f"failed: {', '.join(failed)}")


def device(dry: bool) -> str:
    """The GPU; the CPU in the dry mode."""
    return "cpu" if dry else "cuda"


def wait() -> None:
    """Until a GPU has finished."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(action: Callable[[], Any], repeats: int, warm: int = 1) -> float:
    """Median seconds of a call, the device's work included."""
    for _ in range(warm):
        action()
    taken = []
    for _ in range(repeats):
        wait()
        began = time.perf_counter()
        action()
        wait()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def backbone() -> list[str]:
    """Overrides for the carried weights, where there are any."""
    return [f"backbone.checkpoint={WEIGHTS}"] if WEIGHTS.is_file() else []


def train(folder: Path, *overrides: str) -> list[str]:
    """The command of a run whose folders are below ``folder``; scenes and factors are shared by all parts."""
    started = [sys.executable, str(ROOT / "train.py"), "experiment=demo", f"output_dir={folder}", "tracking=none"]
    return [*started, *overrides]


def call(command: list[str]) -> None:
    """Run a command of the project; raise with the end of its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    print(done.stdout[-2000:], done.stderr[-2000:], flush=True)
    if done.returncode:
        raise RuntimeError(f"code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")


def only_run(folder: Path) -> Path:
    """The one run below a folder."""
    (run,) = (folder / "runs").iterdir()
    return run
