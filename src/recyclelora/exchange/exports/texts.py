"""The load.py and README.md beside exports; what stands in braces is filled from a run."""

from __future__ import annotations

from typing import Any

FEATURES = '''

def features(model, images):
    """Normalised images (B, 3, H, W) -> the maps (B, {channels}, H / {patch}, W / {patch}) of blocks {levels}.

    Values 0 to 1 are normalised by mean {mean} and std {std}.
    """
    return model.forward_intermediates(
        images, indices={levels}, norm=False, output_fmt="NCHW", intermediates_only=True
    )
'''

TIMM_LOAD = (
    '''"""The adapted backbone of {run} as a timm model; needs timm alone."""

from pathlib import Path

import timm

ARGUMENTS = dict(
    {arguments}
)


def load(folder=Path(__file__).parent):
    """The model, in evaluation mode."""
    checkpoint = str(Path(folder) / "{weights}")
    return timm.create_model("{model}", checkpoint_path=checkpoint, **ARGUMENTS).eval()
'''
    + FEATURES
)

TIMM_README = """# The backbone of {run} for timm

{model}, adapted with {adapter} (checkpoint {checkpoint}, step {step}). The adapters are merged into its
weights: it costs what the pretrained model costs. In this folder:

```python
import timm

model = timm.create_model(
    "{model}", checkpoint_path="{weights}",
    {arguments}
).eval()
maps = model.forward_intermediates(images, indices={levels}, norm=False, output_fmt="NCHW", intermediates_only=True)
```

`images` (B, 3, H, W), sides multiples of {patch}: values 0 to 1, normalised by mean {mean}
and std {std}. `load.py` holds the same as functions, and
`timm.create_model("local-dir:<this folder>", pretrained=True)` works as well.

- Patch size {patch}; the position embedding is laid out for {height}x{width} pixels. At other sizes timm resamples
  that by its own rule, the run the pretrained one: for another size export again with `size=[H,W]`.
- The run has blocks 0 to {last} of {depth}. {rest}
"""

PEFT_LOAD = (
    '''"""The adapter of {run} on a fresh timm backbone; needs timm and peft from version {peft} on."""

import json
from pathlib import Path

import timm
import torch
from peft import PeftModel
from safetensors.torch import load_file

HERE = Path(__file__).parent
ARGUMENTS = dict(
    {arguments}
)


def load(weights=None, folder=HERE):
    """The adapted model, in evaluation mode; ``weights`` is a file of the original ones that timm can read."""
    return PeftModel.from_pretrained(original(weights, folder), str(folder)).eval()


def original(weights=None, folder=HERE):
    """The backbone that the adapter belongs to.

    Raises:
        ValueError: these are other weights.
    """
    {create}
    # Patch kernel and position embedding as the run had resampled them to patch {patch} and {height}x{width} pixels.
    backbone.load_state_dict(load_file(str(Path(folder) / "{resampled}")), strict=False)
    for name, expected in json.loads((Path(folder) / "{base}").read_text()).items():
        found = backbone.get_submodule(name).weight.double().abs().sum().item()
        if abs(found - expected) > 1e-5 * expected:
            raise ValueError(f"{{name}} is not the weight that the adapter was trained on ({{found}}, {{expected}})")
    {prepare}return backbone
'''
    + FEATURES
)
PEFT_PRETRAINED = """source = {{"file": str(weights)}} if weights else {{"hf_hub_id": {hub!r}}}
    backbone = timm.create_model("{model}", pretrained=True, pretrained_cfg_overlay=source, **ARGUMENTS)"""
PEFT_HELD = """source = {{"file": str(weights)}} if weights else {{}}
    backbone = timm.create_model(
        "{model}", pretrained=bool(weights), pretrained_cfg_overlay=source or None, **ARGUMENTS
    )
    if not weights:
        backbone.load_state_dict(load_file(str(Path(folder) / "{original}")))"""
PEFT_RANDOM = """torch.manual_seed({seed})  # the run started from random weights
    backbone = timm.create_model("{model}", **ARGUMENTS)"""
PEFT_SEPARATE_BIAS = """for block in backbone.blocks:
        block.attn.qkv_bias_separate = True  # otherwise timm reads the weight past the adapter
    """

PEFT_README = """# The adapter of {run} for PEFT

{model}, adapted with {adapter} (checkpoint {checkpoint}, step {step}). `{adapter_file}` holds
what training added to the original weights as an ordinary LoRA adapter on {num_layers} layers, rank {ranks}.
In this folder:

```python
from load import features, load

model = load()  # {origin}
maps = features(model, images)
backbone = model.merge_and_unload()  # an ordinary timm model again
```

`images` (B, 3, H, W), sides multiples of {patch}: values 0 to 1, normalised by mean {mean}
and std {std}.

`load.py` creates the timm backbone, puts the patch kernel and position embedding of the run into it
(`{resampled}`: patch {patch}, laid out for {height}x{width} pixels; for another size export again with
`size=[H,W]`) and calls `PeftModel.from_pretrained`.
Other original weights than those the adapter was trained on are refused. PEFT reads it from version {peft} on.
"""

PORTABLE_README = """# The segmenter of {run}

{backbone} with {adapter} (checkpoint {checkpoint}, step {step}): backbone with merged adapters, decoder,
preprocessing, {num_classes} classes and the test protocol. It needs numpy and {package}, nothing else. In this folder:

```python
from load import Segmenter, read_image

segmenter = Segmenter()
image = read_image("photo.jpg")             # uint8 RGB (H, W, 3), upright; needs Pillow
ids, confidence = segmenter.predict(image)  # uint8 (H, W), float32 (H, W)
picture = segmenter.colours(ids)            # RGB (H, W, 3)
```

- Images of any size are looked at under the run's protocol `{protocol}`: {mode}.
- `{program}` alone: float32 `images` (B, 3, H, W), RGB with values 0 to 255 (normalisation is inside) -> float32
  `scores` (B, {num_classes}, H, W); {sizes}. `probabilities` turns scores
  (1, {num_classes}, H, W) into probabilities.
- `segmenter.json`: names and colours of the classes, ignored id ({ignored}), sizes, mean and std.
- `report.json`: how far this is from the adapted model.
"""


def portable_readme(about: dict[str, Any], program: str, package: str) -> str:
    """README.md for the content of ``segmenter.json``."""
    protocol, images, classes = about["protocol"], about["images"], about["classes"]
    slide = f"windows of {protocol['window']} pixels every {protocol['stride']}, scores averaged"
    words = about | {
        "package": package, "program": program, "num_classes": len(classes["names"]),
        "ignored": classes["ignore_index"], "protocol": protocol["name"],
        "mode": slide if protocol["mode"] == "slide" else "as a whole", "sizes": _sizes(images),
    }  # fmt: skip
    return PORTABLE_README.format_map(words)


def _sizes(images: dict[str, Any]) -> str:
    batch = "" if images["batch"] is None else f"B is {images['batch']}, "
    if images["size"] is not None:
        return batch + "H and W are {} and {}; load.py pads smaller crops with the mean colour".format(*images["size"])
    multiples = f"multiples of {images['multiple']}, at least {images['least']}"
    return f"{batch}H and W are {multiples}; load.py pads with the mean colour"
