"""Latency of an ONNX export beside the model that it came from, with every provider that onnxruntime has here."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import ROOT, SMALL, Figures, backbone, call, device, only_run, options, seconds, train


def main() -> None:
    given = options(__doc__)
    figures, repeats = Figures(given.output), 2 if given.dry else 20
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        few = ["data.source_val.subset=1", "data.targets=[{dataset: streets, split: day, subset: 1}]"]
        base = SMALL if given.dry else [*backbone(), *few, "trainer.num_figures=0"]
        call(train(folder, *base, "trainer.max_steps=1", f"trainer.accelerator={device(given.dry)}"))
        run = only_run(folder)
        call([sys.executable, str(ROOT / "export.py"), f"run={run}", "format=onnx"])
        import onnxruntime

        import recyclelora
        from recyclelora.exchange.exports.loader import Segmenter

        image = np.random.default_rng(0).integers(0, 256, (256, 512, 3), dtype=np.uint8)
        figures.add(onnxruntime=onnxruntime.__version__, providers=onnxruntime.get_available_providers())
        model = recyclelora.load(run)
        expected = model.predict(image).ids
        figures.attempt("ours_ms", lambda: 1e3 * seconds(lambda: model.predict(image), repeats))
        for name, provider in (("cuda", "CUDAExecutionProvider"), ("cpu", "CPUExecutionProvider")):
            if provider not in onnxruntime.get_available_providers():
                continue
            exported = Segmenter(run / "export/onnx", device=name)
            figures.attempt(f"onnx_{name}_ms", lambda e=exported: 1e3 * seconds(lambda: e.predict(image), repeats))
            same = float((exported.predict(image)[0] == expected).mean())
            figures.add(**{f"onnx_{name}_equal_pixels": same})
    figures.finish()


if __name__ == "__main__":
    main()
