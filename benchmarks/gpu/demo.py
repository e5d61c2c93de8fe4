"""``train.py experiment=demo`` on the device, beside the scores of the same command on a CPU.

python benchmarks/gpu/demo.py --reference       # writes demo-cpu.json: once, on a CPU, with the carried weights

Same data, weights, seed and order of samples. Rounding makes two devices part within a few steps, so that their scores
may differ as two seeds do: the mean over unseen looks has a standard deviation of 0.009 over seeds (benchmarks/
streets.json), and ``agrees`` asks for a difference of at most 0.025, nearly twice that of a difference.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import SMALL, Figures, backbone, call, only_run, options, train

REFERENCE = Path(__file__).with_name("demo-cpu.json")
TOLERANCE = 0.025


def scores(*overrides: str) -> dict[str, Any]:
    """Train; mIoUs, losses of every log point, steps per second and seconds in all."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        call(train(Path(folder), *backbone(), *overrides))
        whole = time.perf_counter() - began
        run = only_run(Path(folder))
        result = json.loads((run / "result.json").read_text())
        points = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [point for point in points if "seconds_per_step" in point]
    return {
        "miou": result["miou"],
        "losses": {point["step"]: round(point["loss_ce"], 4) for point in steps},
        "seconds_per_step": steps[-1]["seconds_per_step"],
        "data_wait_share": steps[-1]["data_wait_share"],
        "seconds_of_the_command": round(whole, 1),
        "peak_memory_mb": result["peak_memory_mb"],
    }


def main() -> None:
    if sys.argv[1:] == ["--reference"]:
        found = scores("trainer.accelerator=cpu", "trainer.precision=32-true")
        REFERENCE.write_text(json.dumps(found, indent=2) + "\n")
        return
    given = options(__doc__)
    figures = Figures(given.output, tolerance=TOLERANCE)
    if given.dry:
        figures.add(float32=scores(*SMALL, "trainer.accelerator=cpu", "trainer.max_steps=2", "trainer.log_every=1"))
        return
    figures.add(float32=scores("trainer.accelerator=cuda", "trainer.precision=32-true"))
    reference = json.loads(REFERENCE.read_text())
    difference = figures["float32"]["miou"]["mean"] - reference["miou"]["mean"]
    figures.add(cpu=reference, difference=round(difference, 4), agrees=abs(difference) <= TOLERANCE)
    figures.attempt("bfloat16", lambda: scores("trainer.accelerator=cuda", "trainer.precision=bf16-mixed"))
    if not figures["agrees"]:
        sys.exit(f"float32 on the GPU differs from the CPU by {difference:.4f}, more than {TOLERANCE}")
    figures.finish()


if __name__ == "__main__":
    main()
