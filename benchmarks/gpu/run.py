"""Run every part of the GPU day in order of worth, each in a process and a time limit of its own.

bash benchmarks/gpu/run.sh [--dry] [--only PART ...] [--budget SECONDS] [FOLDER]

FOLDER gets results.json, written anew after every part, and log.txt. A part that fails, hangs or kills its process is
recorded with the reason and what it had found by then; the next one starts all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
BUDGET = 510.0
"""Seconds for all parts: under nine minutes, with the installation of wheels before them."""
LEAST = 5.0
"""Seconds below which no part is started."""
PATIENCE = 6.0
"""How much longer the parts may take in the dry mode, where the processor may be busy with other things."""


@dataclass(frozen=True)
class Part:
    """A script of this folder, or of the one above, and how long it may take."""

    name: str
    limit: float
    script: str
    real: tuple[str, ...] = ()
    dry: tuple[str, ...] = ("--dry",)
    needs_seconds: bool = False
    """whether it is told how long it has"""


PARTS = (
    Part("environment", 40, "gpu/environment.py"),
    Part("tests", 75, "gpu/tests.py"),
    Part("demo", 120, "gpu/demo.py"),
    Part("step", 110, "train_step.py", dry=("--tiny", "--repeats", "1")),
    Part("adapters", 80, "gpu/adapters.py", needs_seconds=True),
    Part("resume", 75, "gpu/resume.py"),
    Part("evaluation", 60, "gpu/evaluation.py"),
    Part("ddp", 50, "gpu/ddp.py"),
    Part("rrqr", 50, "gpu/pivoting.py"),
    Part("export", 60, "gpu/export.py"),
    Part(
        "forms", 120, "adapter_gpu.py", (),
        ("--small", "--device", "cpu", "--modes", "eager", "--precisions", "float32", "--repeats", "1"),
        needs_seconds=True,
    ),
)  # fmt: skip


def command(part: Part, output: Path, seconds: float, *, dry: bool) -> list[str]:
    """How a part is started; it writes its figures to ``output`` as soon as it has them."""
    told = ["--budget", str(round(max(1.0, seconds - 15), 1))] if part.needs_seconds else []
    given = part.dry if dry else part.real
    return [sys.executable, str(HERE.parent / part.script), *given, *told, "--output", str(output)]


def run(part: Part, seconds: float, folder: Path, log: TextIO, *, dry: bool) -> dict[str, Any]:
    """Run one part and tell how it went: status, seconds, its figures, and the end of its output if it failed."""
    output, said = folder / f"{part.name}.json", folder / f"{part.name}.txt"
    began = time.perf_counter()
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if dry else {})
    with said.open("w") as stream:
        process = subprocess.Popen(
            command(part, output, seconds, dry=dry), stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment, cwd=HERE.parents[1],
        )  # fmt: skip
        try:
            code = process.wait(seconds)
            status = "done" if code == 0 else f"failed with code {code}"
        except subprocess.TimeoutExpired:
            status = f"ended after {seconds:.0f} seconds"
        finally:
            _end(process)
    text = said.read_text(errors="replace")
    log.write(f"=== {part.name}: {status}\n{text}\n")
    log.flush()
    found: dict[str, Any] = {"status": status, "seconds": round(time.perf_counter() - began, 1), "figures": None}
    try:
        found["figures"] = json.loads(output.read_text())
    except (OSError, ValueError) as error:
        if status == "done":
            found["status"] = f"wrote no figures: {error}"
    if found["status"] != "done":
        found["said"] = text[-1500:]
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> int:
    """Run the parts; 0 if all of them are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--dry", action="store_true", help="on the CPU, in miniature")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument(
        "--budget", type=float, help=f"seconds for all parts; {BUDGET:.0f}, in the dry mode six times it"
    )
    options = parser.parse_args()
    budget = options.budget or BUDGET * (PATIENCE if options.dry else 1)
    options.folder.mkdir(parents=True, exist_ok=True)
    began, results = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as work, (options.folder / "log.txt").open("w") as log:
        for part in PARTS:
            if options.only and part.name not in options.only:
                continue
            limit = part.limit * (PATIENCE if options.dry else 1)
            seconds = min(limit, budget - (time.perf_counter() - began))
            if seconds < LEAST:
                found: dict[str, Any] = {"status": "left out: the time was spent", "seconds": 0.0, "figures": None}
            else:
                found = run(part, seconds, Path(work), log, dry=options.dry)
            results[part.name] = found
            print(f"{part.name:12} {found['seconds']:6.1f} s  {found['status']}", flush=True)
            _store(options.folder / "results.json", {"dry": options.dry, "parts": results})
    print(f"{time.perf_counter() - began:.0f} s in all; {options.folder / 'results.json'}")
    return int(any(found["status"] != "done" for found in results.values()))


def _store(path: Path, results: dict[str, Any]) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(results, indent=2) + "\n")
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
