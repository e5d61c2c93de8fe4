"""``format=peft``: what training changed, as an ordinary PEFT LoRA adapter on the original weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn

from recyclelora.adapters.controls.config import FrozenConfig, FullConfig, NormsConfig
from recyclelora.adapters.low_rank.layer import LowRankLinear, SplitQKV
from recyclelora.config.commands import ExportConfig
from recyclelora.exchange.exports import texts
from recyclelora.exchange.exports.agreement import FLOAT32, ExportReport
from recyclelora.exchange.exports.source import Source
from recyclelora.exchange.exports.timm import compare_backbones
from recyclelora.exchange.exports.tracing import quiet
from recyclelora.exchange.exports.updates import Update, update_of
from recyclelora.models.backbones.loading import load_available, resampled_names
from recyclelora.models.backbones.timm import build_timm
from recyclelora.models.timm_library import timm
from recyclelora.system.errors import UserError
from recyclelora.system.storage import write_json, write_text

ADAPTER, RESAMPLED, BASE = "adapter_model.safetensors", "resampled.safetensors", "base.json"
ORIGINAL = "base_model.safetensors"
"""The weights that the adapter belongs to, where timm cannot get or read them by itself."""
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
"""PEFT's name of the wrapped model."""


def write(source: Source, folder: Path, config: ExportConfig) -> ExportReport:
    """Write PEFT's two files, ``resampled.safetensors``, ``base.json``, ``load.py`` and ``README.md``.

    And ``base_model.safetensors``, the original weights, where timm alone would not find or read them.

    Raises:
        UserError: the run's method is no LoRA; names it.
    """
    base = original(source)
    updates = collect(source, base)
    write_json(folder / CONFIG, lora_config(updates, source.backbone.hub or source.backbone.model))
    save_file(adapter_tensors(updates), folder / ADAPTER)
    resampled = {name: base.state_dict()[name].contiguous() for name in resampled_names(base)}
    save_file(resampled, folder / RESAMPLED)
    sums = _sums(base, updates)
    write_json(folder / BASE, sums)
    holds_base = source.pretrained is not None and not _readable_by_timm(source, sums)
    if holds_base:
        save_file({name: tensor.contiguous() for name, tensor in base.state_dict().items()}, folder / ORIGINAL)
    words = _words(source, updates, holds_base)
    write_text(folder / "load.py", texts.PEFT_LOAD.format_map(words))
    write_text(folder / "README.md", texts.PEFT_README.format_map(words))
    loaded = PeftModel.from_pretrained(base, str(folder)).eval()
    ranks = {name: update.rank for name, update in updates.items()}
    details = {"ranks": ranks, "peft": _least_version(updates), "holds_original_weights": holds_base}
    return ExportReport(compare_backbones(source, loaded), FLOAT32, details)


def original(source: Source) -> nn.Module:
    """A whole timm backbone with the weights from which the run started."""
    b = source.backbone
    model: nn.Module = build_timm(b.model, source.run.config.seed, source.timm_arguments)
    if source.pretrained is not None:
        load_available(model, source.pretrained, source.resampling)
    if source.position_embedding is not None:
        model.load_state_dict({"pos_embed": source.position_embedding}, strict=False)
    if _separate_bias(source):
        for module in model.modules():
            if hasattr(module, "qkv_bias_separate"):
                setattr(module, "qkv_bias_separate", True)  # noqa: B010  (an attribute of timm's)
    return model.eval().requires_grad_(False)


def collect(source: Source, base: nn.Module) -> dict[str, Update]:
    """The update of every layer that training changed, by its name in timm's model.

    A method that PEFT has under another name (DoRA) would be one more case here, and a word in `lora_config`.

    Raises:
        UserError: naming the method that has no LoRA form.
    """
    adapter = source.run.config.adapter
    other = "format=timm, segmenter and onnx hold it merged"
    if isinstance(adapter, FrozenConfig):
        raise UserError(
            f"format=peft: adapter={adapter.name} changes nothing, so there is no adapter to export; {other}"
        )
    if isinstance(adapter, FullConfig):
        raise UserError(f"format=peft: adapter={adapter.name} changes every tensor, which no LoRA adapter can; {other}")
    if isinstance(adapter, NormsConfig):
        raise UserError(f"format=peft: adapter={adapter.name} changes no weight of a linear layer; {other}")
    updates: dict[str, Update] = {}
    adapted = dict(source.adapted.model.named_modules())  # without the blocks that the run does not have
    for name, linear in base.named_modules():
        if not isinstance(linear, nn.Linear) or type(adapted.get(name, linear)) is nn.Linear:
            continue
        match adapted[name]:
            case LowRankLinear() | SplitQKV() as layer:
                updates[name] = update_of(layer, linear.bias)
            case layer:
                raise UserError(f"format=peft: adapter={adapter.name} is no LoRA ({type(layer).__name__}); {other}")
    changed = {name: update for name, update in updates.items() if update.rank > 0}
    if not changed:
        raise UserError(f"format=peft: training has not changed any layer of adapter={adapter.name}")
    return changed


def lora_config(updates: Mapping[str, Update], base: str) -> dict[str, Any]:
    """PEFT's configuration; layers of another rank than most are named in its patterns.

    No more than is used, since versions of PEFT refuse what they do not know, and always in this order.
    """
    ranks = {name: update.rank for name, update in updates.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    scale = next(iter(updates.values())).scale
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": usual,
        "lora_alpha": scale * usual,  # any number will do: PEFT's scale is lora_alpha / r
        "target_modules": list(updates),
        "rank_pattern": others,
        "alpha_pattern": {name: scale * rank for name, rank in others.items()},
        "inference_mode": True,
    }
    return config | {"lora_bias": True} if _biased(updates) else config


def _biased(updates: Mapping[str, Update]) -> bool:
    return any(update.bias is not None for update in updates.values())


def _least_version(updates: Mapping[str, Update]) -> str:
    """The oldest PEFT that reads the adapter: 0.14 brought biases of ``lora_B``, 0.11 was tried for all else."""
    return "0.14" if _biased(updates) else "0.11"


def _sums(base: nn.Module, updates: Mapping[str, Update]) -> dict[str, float]:
    """By which ``load.py`` knows the original weights."""
    return {name: base.get_parameter(f"{name}.weight").double().abs().sum().item() for name in updates}


def _readable_by_timm(source: Source, sums: Mapping[str, float]) -> bool:
    """Whether timm gets the original weights: from the hub, or by reading the very file that the run used."""
    assert source.weights is not None
    if source.weights.origin.startswith("hub:"):
        return True
    overlay = {"file": str(source.weights.path)}
    try:
        with quiet():
            model = timm.create_model(
                source.backbone.model, pretrained=True, pretrained_cfg_overlay=overlay, **source.timm_arguments
            )
        found = {name: model.get_parameter(f"{name}.weight").double().abs().sum().item() for name in sums}
    except Exception:  # a file of another kind may make its loader raise anything
        return False
    return all(abs(found[name] - expected) <= 1e-5 * expected for name, expected in sums.items())


def adapter_tensors(updates: Mapping[str, Update]) -> dict[str, Tensor]:
    """The factors under PEFT's names; a trained bias is that of ``lora_B``, which PEFT scales like the product."""
    biased = _biased(updates)
    tensors: dict[str, Tensor] = {}
    for name, update in updates.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = update.a.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = update.b.contiguous()
        if biased:
            change = torch.zeros(len(update.b)) if update.bias is None else update.bias
            tensors[f"{PREFIX}{name}.lora_B.bias"] = change / update.scale
    return tensors


def _separate_bias(source: Source) -> bool:
    """Whether timm's attention had to be told to call its qkv layer (EVA and DINOv3)."""
    return any(getattr(module, "qkv_bias_separate", False) for module in source.adapted.model.modules())


def _words(source: Source, updates: Mapping[str, Update], holds_base: bool) -> dict[str, Any]:
    """What the texts leave open."""
    seed, hub = source.run.config.seed, source.backbone.hub
    words = source.words | {
        "hub": hub, "seed": seed, "resampled": RESAMPLED, "base": BASE, "adapter_file": ADAPTER, "original": ORIGINAL,
        "num_layers": len(updates), "ranks": ", ".join(map(str, sorted({update.rank for update in updates.values()}))),
        "prepare": texts.PEFT_SEPARATE_BIAS if _separate_bias(source) else "", "peft": _least_version(updates),
    }  # fmt: skip
    if source.pretrained is None:
        create, origin = texts.PEFT_RANDOM, f"on the random weights of seed {seed}"
    elif holds_base:
        create, origin = texts.PEFT_HELD, f"on the original weights in {ORIGINAL}"
    else:
        create, known = texts.PEFT_PRETRAINED, f"on {hub} from the Hugging Face hub, or " if hub else "needs "
        origin = known + "weights=<the file of the run's backbone>"
    return words | {"create": create.format_map(words), "origin": origin}
