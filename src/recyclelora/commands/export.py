"""Write a finished run's model in a form that needs nothing of this project, and verify it.

    recyclelora export run=outputs/runs/<run> format=timm
    recyclelora export run=outputs/runs/<run> format=onnx precision=fp16 size=[512,1024]

run=            the run directory
format=         timm, peft (the backbone), segmenter, onnx (the whole model), or one of an installed package
checkpoint=     last (default), best_source or best_target
size=           [height,width] that the model is made for (default: open, or the run's own)
precision=      of ONNX: fp32 (default), fp16 or int8
bench=true      measures latency and memory of segmenter or onnx
output=         folder that is written (default: <run>/export/<format>)
"""

from __future__ import annotations

import sys
from pathlib import Path

from recyclelora.commands import start
from recyclelora.config.commands import ExportConfig
from recyclelora.system.imports import quick_imports


def export(config: ExportConfig, trial: int | None = None) -> None:
    """Write ``output`` or ``<run>/export/<format>`` and say how far it is from the adapted model."""
    with quick_imports():
        from recyclelora.exchange.exports.bench import bench_table, measured
        from recyclelora.exchange.exports.card import CARD, model_card
        from recyclelora.exchange.exports.folder import REPORT, replaced
        from recyclelora.exchange.exports.formats import writer
        from recyclelora.exchange.exports.source import open_run
        from recyclelora.exchange.exports.tracing import default_size
        from recyclelora.runs.directory import EXPORTS
        from recyclelora.system.next_steps import next_steps, typed_as
        from recyclelora.system.progress import Reporter
        from recyclelora.system.storage import folder_inside, write_json, write_text

    write = writer(config.format)
    source = open_run(config)
    reporter = Reporter()
    own = None if config.output else folder_inside(Path(config.run), EXPORTS, "give output=<folder>") / config.format
    final = own or Path(str(config.output)).expanduser()
    with replaced(final) as folder:
        report = write(source, folder, config)
        report.verify()
        rows = measured(folder, config.image_size or default_size(source)) if config.bench else []
        bench = {"bench": rows} if rows else {}
        write_json(folder / REPORT, {"format": config.format, **source.about, **report.to_json(), **bench})
        write_text(folder / CARD, model_card(source, config.format, rows))
    if rows:
        reporter.table(bench_table(rows))
    if cost := report.details.get("miou"):
        points = f"{100 * cost['lost']:.2f} points of mIoU"
        reporter.note(f"{config.precision} loses {points} on {cost['images']} images of source validation")
    for check in report.checks:
        reporter.note(f"compared with the adapted model {check}")
    if report.remark:
        reporter.warn(report.remark)
    reporter.note(f"written: {final}")
    steps = [("load it", str(final / "README.md")), ("what to expect of it", str(final / CARD))]
    if config.format in ("segmenter", "onnx") and not config.bench:
        again = typed_as("export", *[word for word in sys.argv[1:] if not word.startswith("bench=")], "bench=true")
        steps.append(("measure speed and memory", again))
    if trial is None:
        reporter.note(next_steps(*steps))


def main() -> None:
    """``python export.py run=<run dir> format=timm|peft|segmenter|onnx``."""
    start("export", export)
