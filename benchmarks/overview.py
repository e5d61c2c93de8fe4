"""Draw README's picture, docs/overview.jpg: rendered scenes of unseen looks as two methods segment them.

python docs/overview.py        # two runs of the demo's setting, about 8 minutes on 2 idle cores; then it only draws
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

import recyclelora
from recyclelora.data.datasets import open_dataset
from recyclelora.drawing.tiles import comparison

ROOT = Path(__file__).resolve().parents[1]
METHODS = {"frozen backbone": "frozen", "RecycleLoRA": "recyclelora_short"}
LOOKS = ("day", "night", "snow")


def run(adapter: str) -> Path:
    """Train the demo's setting with an adapter, or find it finished; its directory."""
    command = [sys.executable, str(ROOT / "train.py"), "experiment=demo", f"adapter={adapter}", "tracking=none"]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return ROOT / done.stdout.rpartition("results and pictures: ")[2].strip()


def main() -> None:
    """Train both, draw one scene of each look."""
    runs = {name: run(adapter) for name, adapter in METHODS.items()}
    models = {name: recyclelora.load(path) for name, path in runs.items()}
    miou = {name: json.loads((path / "result.json").read_text())["miou"]["targets"] for name, path in runs.items()}
    rows = []
    for look in LOOKS:
        sample = open_dataset("streets", look, root=ROOT / "data", name=look).load(0)
        predicted = [
            (f"mIoU of all {look}: {100 * miou[name][look]:.1f} %", model.predict(sample.image).ids)
            for name, model in models.items()
        ]
        rows.append((look, sample.image, sample.label, predicted))
    classes = models["RecycleLoRA"].classes
    picture = comparison(rows, list(METHODS), classes, title="trained on one rendered look, never on these")
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="jpeg", quality=88, optimize=True)
    (ROOT / "docs/overview.jpg").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
