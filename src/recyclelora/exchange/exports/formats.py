"""Format -> the function that writes it: those built in, each a module here, and those of installed packages."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from recyclelora.config.commands import EXPORT_FORMATS, EXPORT_GROUP, ExportConfig
from recyclelora.exchange.exports.agreement import ExportReport
from recyclelora.exchange.exports.source import Source
from recyclelora.system.extras import require
from recyclelora.system.plugins import plugins

Writer = Callable[[Source, Path, ExportConfig], ExportReport]
"""(run, empty folder, what was asked) -> comparisons of what was written with the adapted model."""

NEEDS = {"peft": ("peft",), "onnx": ("onnx", "onnxruntime", "onnxscript")}


def writer(name: str) -> Writer:
    """The function that writes a format.

    Raises:
        UserError: a package is missing that the format needs, or the one that brings it is broken.
    """
    if name not in EXPORT_FORMATS:
        found: Writer = plugins(EXPORT_GROUP, EXPORT_FORMATS)[name]
        return found
    require(f"format={name}", "export", *NEEDS.get(name, ()))
    written: Writer = importlib.import_module(f"recyclelora.exchange.exports.{name}").write
    return written
