"""Draw README's picture, docs/overview.jpg: rendered scenes of unseen looks as two methods segment them.

python benchmarks/overview.py        # of the runs of streets.py with seed 0, which it trains if they are not there
"""

from __future__ import annotations

import io
import json

from PIL import Image
from streets import METHODS, ROOT, train

import recyclelora
from recyclelora.data.datasets import open_dataset
from recyclelora.drawing.sheets import comparison

SHOWN = {"frozen backbone": "DINOv2 ViT-S, frozen", "RecycleLoRA": "DINOv2 ViT-S, RecycleLoRA (scale 1)"}
"""Head of the column -> the method of streets.py."""
LOOKS = ("day", "night", "snow")


def main() -> None:
    """One scene of each look, as both see it."""
    runs = {name: train(method, METHODS[method], seed=0) for name, method in SHOWN.items()}
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
    picture = comparison(rows, list(SHOWN), classes, title="trained on one rendered look, never on these")
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="jpeg", quality=88, optimize=True)
    (ROOT / "docs/overview.jpg").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
