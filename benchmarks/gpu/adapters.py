"""A training step of DINOv2-L under every adapter of conf/adapter, and under none.

Batch 4 at 512 pixels, bfloat16, eager: forward, backward to the images, AdamW; the decoder is left out. Low-rank
adapters start from random factors, since the cost depends on none. What the time leaves no room for is named.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from typing import Any

import torch
from adapter_gpu import Step, vit
from common import ROOT, Figures, device, options
from hydra import compose, initialize_config_dir

from recyclelora.adapters.low_rank.config import LowRankConfig
from recyclelora.adapters.method import AdapterContext
from recyclelora.config.compose import register_schemas, typed
from recyclelora.models.backbones.timm import TimmBackbone, create_backbone

FIRST = ("frozen", "lora", "recyclelora", "soma", "rein", "full", "dora", "vera", "adalora", "pissa", "milora")
"""The most telling; the others follow."""


def adapter_options(name: str) -> Any:
    """An adapter's options, low-rank ones with random factors."""
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf")):
        chosen = typed(compose("train", [f"adapter={name}", "data.root=."])).adapter
    if not isinstance(chosen, LowRankConfig):
        return chosen
    branches = {"main": chosen.main, "sub": chosen.sub}
    random = {key: dataclasses.replace(b, init="gaussian") for key, b in branches.items() if b is not None}
    return dataclasses.replace(chosen, **random)


def toy() -> tuple[TimmBackbone, torch.Tensor]:
    """Twelve blocks, since some adapters take the last ones only, but narrow ones."""
    arguments = {"depth": 12, "embed_dim": 48, "num_heads": 3}
    backbone = create_backbone(
        "vit_tiny_patch16_224", patch_size=16, image_size=(32, 32), levels=None, model_args=arguments, weights=None
    )
    return backbone, torch.randn(1, 3, 32, 32)


def main() -> None:
    given = options(__doc__, budget=float)
    began, where = time.perf_counter(), torch.device(device(given.dry))
    figures = Figures(given.output)
    names = sorted(path.stem for path in (ROOT / "conf/adapter").glob("*.yaml"))
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    backbone, images = toy() if given.dry else vit(small=False)
    images = images.to(where)
    precision = "float32" if given.dry else "bfloat16"

    def measured(name: str) -> dict[str, Any]:
        model = copy.deepcopy(backbone)
        adapter_options(name).method().apply(model.model, AdapterContext(max_steps=1000))
        found = Step(model, [images], "eager", precision).measure(1 if given.dry else 4)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        figure = {key: value and round(value, 3) for key, value in found.items()} | {"trained": trained}
        if "frozen" in figures:
            figure["of_frozen"] = round(found["milliseconds"] / figures["frozen"]["milliseconds"], 3)
        return figure

    for index, name in enumerate(names):
        if time.perf_counter() - began > given.budget:
            figures.add(left_out=names[index:])
            break
        figures.attempt(name, lambda name=name: measured(name))
        torch.cuda.empty_cache()
    figures.finish()


if __name__ == "__main__":
    main()
