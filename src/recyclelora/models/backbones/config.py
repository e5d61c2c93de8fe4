"""Options of the group ``backbone``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Optional

from omegaconf import MISSING

from recyclelora.system.checks import Problem, added, at_least, checked, file_name, one_of

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class BackboneConfig:
    """A vision foundation model as timm knows it, and how it is resampled to the patch size it runs at."""

    name: str = checked(MISSING, file_name)
    """names run directories"""
    model: str = MISSING
    """one of timm's architectures"""
    hub: Optional[str] = None
    """timm's name of the pretrained weights; null: none are downloaded"""
    patch_size: int = checked(16, at_least, 1)
    """in pixels, to which the patch embedding is resampled"""
    image_size: Optional[list[int]] = None
    """[height, width] that the position embedding is laid out for; null takes the training crop"""
    pretrained: bool = True
    """whether weights are loaded; false stays random"""
    checkpoint: Optional[str] = None
    """file with the weights; null looks for them in the Hugging Face cache and hub"""
    levels: Optional[list[int]] = None
    """four blocks whose features the decoder gets; null: by the model's depth"""
    resampling: str = checked("bicubic", one_of, ("bicubic", "timm"))
    """of the patch embedding: ``bicubic``, or timm's own"""
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    """of red, green and blue, in 0..1, that images are normalised by"""
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    """of red, green and blue"""
    model_args: dict[str, Any] = field(default_factory=dict)
    """further arguments of timm's create_model"""
    positions: str = added("laid_out", one_of, ("pretrained", "laid_out"))
    """what images of another size get resampled: the ``pretrained`` grid, or, as in the first release, a second time
    what is ``laid_out``"""

    def check(self) -> Iterator[Problem]:
        if not re.fullmatch(r"[\w.]+", self.model):  # timm would fetch "hf-hub:..." and read a path
            yield "model", "must be the name of one of timm's architectures, such as vit_large_patch14_dinov2"
        if self.image_size is not None and (
            len(self.image_size) != 2 or any(s < 1 or s % max(1, self.patch_size) for s in self.image_size)
        ):
            yield "image_size", f"must be [height, width], multiples of the patch size {self.patch_size}"
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or (name == "std" and min(values) <= 0):
                yield name, "must be [red, green, blue]" + (" above 0" if name == "std" else "")
        if self.levels is not None and (
            len(self.levels) != 4 or self.levels[0] < 0 or any(a >= b for a, b in pairwise(self.levels))
        ):
            yield "levels", "must name 4 blocks, 0-based and ascending"
