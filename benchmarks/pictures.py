"""CPU seconds that a run spends on its pictures, beside what it spends on training and scoring.

python benchmarks/pictures.py        # writes pictures.json; the demo's model and data, fewer steps
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from hydra import compose, initialize_config_dir

from recyclelora.config.compose import home, register_schemas, typed
from recyclelora.training.pictures import Pictures
from recyclelora.training.run import Run
from recyclelora.training.scorer import Scorer
from recyclelora.training.trainer import Trainer

DEMO_STEPS, DEMO_IMAGES = 160, 40
"""Steps, and images of each set, of ``experiment=demo``."""
IMAGES = 3
LOOKS = ("day", "dusk", "night", "fog", "rain", "snow", "other_city")
spent: dict[str, list[float]] = defaultdict(list)


def timed(owner: type, name: str, key: str) -> None:
    """Note the CPU seconds of every call of a method."""
    method = getattr(owner, name)

    def measured(*arguments: object, **named: object) -> object:
        began = time.process_time()
        try:
            return method(*arguments, **named)
        finally:
            spent[key].append(time.process_time() - began)

    setattr(owner, name, measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    steps = parser.parse_args().steps
    for name in ("start", "evaluation", "finish"):
        timed(Pictures, name, f"pictures_{name}")
    timed(Scorer, "score", "score")
    timed(Trainer, "fit", "fit")
    register_schemas()
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(home() / "conf")):
        targets = ", ".join(f"{{dataset: streets, split: {look}, name: {look}, subset: {IMAGES}}}" for look in LOOKS)
        options = [
            "experiment=demo", "tracking=none", f"output_dir={folder}", f"trainer.max_steps={steps}",
            f"trainer.eval_every={steps // 2}", f"data.source_val.subset={IMAGES}", f"data.targets=[{targets}]",
        ]  # fmt: skip
        Run.identify(typed(compose("train", options)), None).execute()
        files = {path.name: path.stat().st_size for path in Path(folder).glob("runs/*/figures/*.png")}
    mean = {name: statistics.mean(values) for name, values in spent.items()}
    in_fit = sum(sum(spent[name]) for name in ("pictures_start", "pictures_evaluation"))
    step = (spent["fit"][0] - in_fit - sum(spent["score"])) / steps
    full = mean["score"] / IMAGES * DEMO_IMAGES
    demo = sum(mean[f"pictures_{name}"] for name in ("start", "evaluation", "finish"))
    result = {
        "what": "CPU seconds, one thread; DINOv2-S, RecycleLoRA 32+4, streets: source validation and 7 targets",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.machine()},
        "before_the_first_step": round(mean["pictures_start"], 2),
        "an_evaluation": round(mean["pictures_evaluation"], 2),
        "the_end": round(mean["pictures_finish"], 2),
        "a_training_step": round(step, 2),
        "scoring_all_sets_of_the_demo": round(full, 2),
        "share_of_the_demo": round(demo / (demo + DEMO_STEPS * step + full), 4),
        "kib": {name: size // 1024 for name, size in sorted(files.items())},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
