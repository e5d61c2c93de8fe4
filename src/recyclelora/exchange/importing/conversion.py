"""From a checkpoint file to all that a run directory needs, every name and shape checked against our model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recyclelora.adapters.low_rank.config import LowRankConfig
from recyclelora.adapters.low_rank.inject import LowRank
from recyclelora.config.build import BACKBONE, build_backbone, build_model, locate_weights, user_errors
from recyclelora.config.commands import ImportConfig
from recyclelora.config.run import Config
from recyclelora.exchange.importing import recyclelora, rein, soma
from recyclelora.exchange.importing.frozen import fused, laid_out, num_prefix_positions, strays
from recyclelora.exchange.importing.keys import Kind, SortedTensors, Tensors, sort
from recyclelora.models.backbones.layouts import without_module
from recyclelora.models.backbones.loading import fitted_weights, timm_names
from recyclelora.models.backbones.timm import TimmBackbone
from recyclelora.models.backbones.weights import WeightsFile, read_weights, sha256_of
from recyclelora.models.state import trainable_state
from recyclelora.runs.weights import Weights
from recyclelora.system.errors import UserError, some

KINDS: dict[str, Kind] = {kind.name: kind for kind in (rein.KIND, soma.KIND, recyclelora.KIND)}


@dataclass(frozen=True)
class Converted:
    """A run to be written.

    Attributes:
        config: of the run.
        kind: of the checkpoint.
        source: the checkpoint.
        weights: trained tensors; the initial factors are zeros, since a checkpoint does not tell them.
        pretrained: the file that the frozen weights are in, or
        frozen: these weights themselves, under timm's names, where the checkpoint brought them.
        ignored: tensors of the checkpoint that no segmenter uses.
        remarks: worth telling.
    """

    config: Config
    kind: str
    source: WeightsFile
    weights: Weights
    pretrained: WeightsFile | None
    frozen: Tensors | None
    ignored: list[str]
    remarks: list[str]


def convert(config: ImportConfig) -> Converted:
    """Read a checkpoint and find the place of each of its tensors.

    Raises:
        UserError: it is no checkpoint of this kind, or not of this backbone, adapter or decoder.
    """
    kind = KINDS[config.kind]
    source = _checkpoint_file(config.checkpoint)
    with user_errors():
        found = sort(without_module(read_weights(source)), kind)
    _refuse_unknown(found, kind, source.path)
    run_config = Config(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Config)})
    run_config.backbone.pretrained = True
    backbone = _skeleton(run_config)
    frozen, pretrained = _frozen_weights(found, kind, run_config, backbone, source.path)
    remarks = _lay_out(run_config, frozen, backbone)
    trained, initial = _trained(found, kind, run_config, source.path)
    with user_errors():
        fitted = fitted_weights(_skeleton(run_config).model, frozen, run_config.backbone.resampling)  # type: ignore[arg-type]
    if pretrained is not None:
        _refuse_strays(found, trained, fitted, source.path, pretrained.path)
    weights = Weights(trained, initial, run_config.trainer.max_steps)
    own = frozen if pretrained is None else None
    return Converted(run_config, kind.name, source, weights, pretrained, own, found.ignored, remarks)


def _checkpoint_file(checkpoint: str) -> WeightsFile:
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise UserError(f"checkpoint={checkpoint}: there is no such file")
    return WeightsFile(path, sha256_of(path), "checkpoint")


def _refuse_unknown(found: SortedTensors, kind: Kind, path: Path) -> None:
    if not found.adapter:
        example = kind.prefix + next(iter(kind.adapter)).replace("*", "8")
        raise UserError(f"{path}: no checkpoint of kind={kind.name}: it holds nothing named like {example}")
    if found.unknown:
        listed = "\n".join(f"  {name}" for name in found.unknown)
        raise UserError(f"{path}: {len(found.unknown)} tensors have no place in kind={kind.name}:\n{listed}")


def _skeleton(config: Config) -> TimmBackbone:
    """The backbone without weights: for names and shapes."""
    with user_errors(), torch.device("meta"):
        return build_backbone(config, None)


def _frozen_weights(
    found: SortedTensors, kind: Kind, config: Config, backbone: TimmBackbone, path: Path
) -> tuple[Tensors, WeightsFile | None]:
    """The checkpoint's own frozen weights where it has them all; else those of the pretrained file, and that file."""
    own = fused(found.backbone)
    missing = sorted(backbone.model.state_dict().keys() - own.keys())
    if not missing:
        if config.backbone.checkpoint is not None:
            raise UserError(
                f"backbone.checkpoint={config.backbone.checkpoint}: leave it out, {path} holds its backbone"
            )
        return own, None
    if kind.own_weights:
        raise UserError(
            f"{path}: {len(missing)} frozen weights are missing, which in kind={kind.name} are not the pretrained "
            f"ones: {some(missing)}"
        )
    file = locate_weights(config.backbone)
    assert file is not None
    with user_errors():
        return timm_names(backbone.model, read_weights(file)), file


def _lay_out(config: Config, frozen: Mapping[str, Tensor], backbone: TimmBackbone) -> list[str]:
    """Lay the position embedding out as the file has it, so that nothing is resampled a second time."""
    b, protocol = config.backbone, config.data.protocol
    b.image_size = b.image_size or laid_out(frozen, b.patch_size, num_prefix_positions(backbone.model))
    size = b.image_size or config.data.augment.crop
    if protocol.mode == "slide" and size != [protocol.window] * 2:
        return [
            f"the backbone is laid out for {size[0]}x{size[1]} pixels, but the protocol {protocol.name} slides windows "
            f"of {protocol.window}: was the checkpoint not tested with another data/protocol?"
        ]
    return []


def _trained(found: SortedTensors, kind: Kind, config: Config, path: Path) -> tuple[Tensors, Tensors]:
    """The trained tensors under a segmenter's names, exactly those that our model has, and its initial factors."""
    expected, initial = expected_state(config)
    given = {BACKBONE + name: tensor for name, tensor in (found.backbone | found.adapter).items()}
    given = {name: tensor for name, tensor in given.items() if name in expected}
    given |= {BACKBONE + name: tensor for name, tensor in found.adapter.items()}
    given |= {f"decoder.{name}": tensor for name, tensor in found.decoder.items()}
    problems = {
        "missing": sorted(expected.keys() - given.keys()),
        "not in this model": sorted(given.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in given and given[name].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        text = "; ".join(f"{what}: {some(names)}" for what, names in problems.items() if names)
        here = problems["not in this model"]
        text += "".join(f"; is it for {option}?" for name, option in kind.variants.items() if f"decoder.{name}" in here)
        raise UserError(
            f"{path}: does not fit backbone={config.backbone.name}, adapter={config.adapter.name}, "
            f"decoder={config.decoder.name} and {len(config.data.classes.names)} classes; {text}"
        )
    return {name: given[name] for name in expected}, initial


def expected_state(config: Config) -> tuple[Tensors, Tensors]:
    """What a run of this configuration stores: its trained tensors, on the meta device, and its initial factors.

    The factors are zeros: the frozen weights of a checkpoint are taken as they are.
    """
    with user_errors(), torch.device("meta"):
        initial = _no_factors(config)
        return trainable_state(build_model(config, None, initial=initial).segmenter), initial or {}


def _no_factors(config: Config) -> Tensors | None:
    """Zeros for the initial factors of a low-rank adapter; None for any other."""
    if not isinstance(config.adapter, LowRankConfig):
        return None
    zeros: Tensors = {}
    for name, linear in LowRank(config.adapter).check(build_backbone(config, None).model).items():
        for branch, chosen in config.adapter.branches.items():
            zeros[f"{name}.{branch}.lora_a"] = torch.zeros(chosen.rank, linear.in_features, device="cpu")
            zeros[f"{name}.{branch}.lora_b"] = torch.zeros(linear.out_features, chosen.rank, device="cpu")
    return zeros


def _refuse_strays(found: SortedTensors, trained: Tensors, fitted: Tensors, path: Path, pretrained: Path) -> None:
    """Frozen tensors that the checkpoint repeats tell whether these pretrained weights are the ones it knew."""
    repeated = fused({name: tensor for name, tensor in found.backbone.items() if BACKBONE + name not in trained})
    wrong = strays(repeated, fitted)
    if wrong:
        raise UserError(
            f"{path}: was trained on other weights than {pretrained}, whose {some(wrong)} differ; "
            "give the right file: backbone.checkpoint=<file>"
        )
