"""Write a finished run's model in a form that needs nothing of this project, and verify it.

    recyclelora export run=outputs/runs/<run> format=timm
    recyclelora export run=outputs/runs/<run> format=onnx precision=fp16 size=[512,1024]

run=            the run directory
format=         timm, peft (the backbone), segmenter, onnx (the whole model), or one of an installed package
checkpoint=     last (default), best_source or best_target
size=           [height,width] that the model is made for (default: open, or the run's own)
precision=      of ONNX: fp32 (default) or fp16
output=         folder that is written (default: <run>/export/<format>)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from recyclelora.commands import start
from recyclelora.config.commands import ExportConfig
from recyclelora.runs.directory import ADAPTER, CONFIG, EXPORTS, is_run
from recyclelora.system.errors import UserError

if TYPE_CHECKING:
    from recyclelora.exchange.exports.agreement import Outcome
    from recyclelora.exchange.exports.source import Source

Writer = Callable[["Source", Path], "Outcome"]


def export(config: ExportConfig, trial: int | None = None) -> None:
    """Write ``output`` or ``<run>/export/<format>`` and say how far it is from the adapted model."""
    write = writer(config)
    source = open_run(Path(config.run), config.checkpoint, _layout(config))
    from recyclelora.exchange.exports.folder import REPORT, replaced
    from recyclelora.system.progress import Reporter
    from recyclelora.system.storage import folder_inside, write_json

    reporter = Reporter()
    own = None if config.output else folder_inside(Path(config.run), EXPORTS) / config.format
    final = own or Path(str(config.output)).expanduser()
    with replaced(final) as folder:
        outcome = write(source, folder)
        outcome.verify()
        write_json(folder / REPORT, {"format": config.format, **source.about, **outcome.to_json()})
    for check in outcome.checks:
        reporter.note(f"compared with the adapted model {check}")
    if outcome.remark:
        reporter.warn(outcome.remark)
    reporter.note(f"written: {final} (README.md says how to load it)")


def _layout(config: ExportConfig) -> tuple[int, int] | None:
    """The size for which a backbone alone is laid out; a segmenter is traced for its size instead."""
    if config.size is None or config.format not in ("timm", "peft"):
        return None
    return config.size[0], config.size[1]


def open_run(run: Path, checkpoint: str, layout: tuple[int, int] | None = None) -> Source:
    """Load and merge a finished run.

    Raises:
        UserError: no run, not finished, no such checkpoint, its adapter cannot be merged, or a size that cannot be.
    """
    if not is_run(run):
        raise UserError(f"run={run}: not a run directory (it has no {CONFIG})")
    from recyclelora.evaluation.load import load
    from recyclelora.exchange.exports.source import Source

    if not (run / ADAPTER).is_file():  # written just before the result; imported runs have no result
        raise UserError(f"run={run}: has not finished; the command that started it goes on from its last checkpoint")
    source = Source.of(load(run, checkpoint, accelerator="cpu"), checkpoint, layout)
    patch = source.adapted.patch_size
    if any(side % patch for side in source.image_size):
        raise UserError(f"size={list(source.image_size)}: sides must be multiples of patch {patch}")
    return source


def writer(config: ExportConfig) -> Writer:
    """The function that writes a format, with the options that are the format's own.

    Raises:
        UserError: a package is missing that the format needs.
    """
    size = None if config.size is None else (config.size[0], config.size[1])
    try:
        match config.format:
            case "timm":
                from recyclelora.exchange.exports import timm

                return timm.write
            case "peft":
                from recyclelora.exchange.exports import peft

                return peft.write
            case "segmenter":
                from recyclelora.exchange.exports import segmenter

                return lambda source, folder: segmenter.write(source, folder, size)
            case _:
                import onnxruntime  # noqa: F401
                import onnxscript  # noqa: F401

                from recyclelora.exchange.exports import onnx

                return lambda source, folder: onnx.write(source, folder, size, config.precision)
    except ModuleNotFoundError as missing:
        advice = "pip install 'recyclelora[export]'"
        raise UserError(f"format={config.format} needs the package {missing.name}: {advice}") from missing


def main() -> None:
    """``python export.py run=<run dir> format=timm|peft|segmenter|onnx``."""
    start("export", export)
