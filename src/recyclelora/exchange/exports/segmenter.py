"""``format=segmenter``: backbone, decoder, preprocessing, classes and test protocol as torch programs in one folder."""

from __future__ import annotations

from pathlib import Path

import torch

from recyclelora.config.commands import ExportConfig
from recyclelora.exchange.exports.agreement import FLOAT32, ExportReport, compare_programs
from recyclelora.exchange.exports.bundle import PROBABILITIES, SCORES, write_bundle
from recyclelora.exchange.exports.source import Source
from recyclelora.exchange.exports.tracing import trace


def write(source: Source, folder: Path, config: ExportConfig) -> ExportReport:
    """Write ``segmenter.pt2``, ``probabilities.pt2``, ``segmenter.json``, ``load.py`` and ``README.md``.

    Raises:
        UserError: a size that cannot be.
    """
    traced = trace(source, config.image_size)
    for name, program in ((SCORES, traced.scores), (PROBABILITIES, traced.probabilities)):
        program.example_inputs = None
        torch.export.save(program, folder / f"{name}.pt2")
    write_bundle(source, traced, "fp32", folder, f"{SCORES}.pt2", "torch")
    return ExportReport(compare_programs(source, traced, folder), FLOAT32, traced.open, traced.remark)
