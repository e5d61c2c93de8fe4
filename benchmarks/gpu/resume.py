"""Is a run that was stopped and resumed on the device the run that was never stopped, bit for bit?

Three runs of one command with ``trainer.deterministic=true``: whole; whole again; stopped by SIGTERM in the middle and
resumed. And without it, whole twice. Compared are the trained tensors, the losses and the scores.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, SMALL, Figures, backbone, call, device, only_run, options, train

STEPS = 24


def outcome(folder: Path) -> dict[str, Any]:
    """What must be equal."""
    run = only_run(folder)
    points = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "tensors": hashlib.sha256((run / "adapter.safetensors").read_bytes()).hexdigest(),
        "losses": {point["step"]: point["loss_ce"] for point in points if "loss_ce" in point},
        "miou": json.loads((run / "result.json").read_text())["miou"],
    }


def stopped_and_resumed(folder: Path, command: list[str]) -> int:
    """Stop a run by SIGTERM once it has logged, and run the command again; the step that it was stopped after."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        written = list(folder.glob("runs/*/metrics.jsonl"))
        if written and written[0].stat().st_size:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.01)
    process.wait(60)
    steps = [int(path.name.removeprefix("step_")) for path in folder.glob("runs/*/checkpoints/step_*")]
    call(command)
    return max(steps, default=0)


def main() -> None:
    given = options(__doc__)
    few = ["data.source_val.subset=4", "data.targets=[{dataset: streets, split: day, subset: 4}]"]
    steps = STEPS if not given.dry else 8
    base = [
        *(SMALL if given.dry else [*backbone(), *few]), f"trainer.accelerator={device(given.dry)}",
        f"trainer.max_steps={steps}", "trainer.log_every=1", f"trainer.eval_every={steps}", "trainer.num_figures=0",
    ]  # fmt: skip
    figures = Figures(given.output)
    with tempfile.TemporaryDirectory() as work:

        def whole(name: str, *more: str) -> dict[str, Any]:
            call(train(Path(work, name), *base, *more))
            return outcome(Path(work, name))

        first = whole("first", "trainer.deterministic=true")
        cut = Path(work, "cut")
        step = stopped_and_resumed(cut, train(cut, *base, "trainer.deterministic=true"))
        again = outcome(cut)
        figures.add(steps=steps, stopped_after=step, resumed_is_equal={key: first[key] == again[key] for key in first})
        second = whole("second", "trainer.deterministic=true")
        figures.add(repeated_is_equal={key: first[key] == second[key] for key in first})
        if not given.dry:
            free = [whole(name) for name in ("free", "free again")]
            figures.add(equal_without_deterministic={key: free[0][key] == free[1][key] for key in first})
    if not all(figures["resumed_is_equal"].values()):
        sys.exit("the resumed run is another one")


if __name__ == "__main__":
    main()
