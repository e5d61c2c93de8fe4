"""From a checked configuration to the model of a run. Nothing is built from a user's import path: the kinds of parts
are the ones written here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recyclelora.adapters.adalora import AdaLoRA
from recyclelora.adapters.config import (
    AdaLoraConfig,
    AdapterConfig,
    BranchConfig,
    DoraConfig,
    FrozenConfig,
    FullConfig,
    LowRankConfig,
    OwnAdapter,
    ReinConfig,
    VeraConfig,
)
from recyclelora.adapters.dora import DoRA
from recyclelora.adapters.linalg.factor_cache import FactorCache, Progress
from recyclelora.adapters.low_rank.inject import LowRank
from recyclelora.adapters.low_rank.spec import AdapterSpec, BranchSpec
from recyclelora.adapters.method import Adapted, Method, Setting, TrainingState
from recyclelora.adapters.rein import Rein
from recyclelora.adapters.state import initial_state
from recyclelora.adapters.vera import VeRA
from recyclelora.adapters.whole import Frozen, Full
from recyclelora.config.run import Config
from recyclelora.data.labels import IGNORE, PADDING
from recyclelora.models.backbones.config import BackboneConfig
from recyclelora.models.backbones.timm import TimmBackbone, create_backbone
from recyclelora.models.backbones.weights import (
    WeightsFile,
    WeightsNotFound,
    WeightsUnreadable,
    find_weights,
    read_weights,
)
from recyclelora.models.decoders.config import (
    DecoderConfig,
    DptDecoderConfig,
    EomtDecoderConfig,
    FpnDecoderConfig,
    LinearDecoderConfig,
    Mask2FormerDecoderConfig,
    SegformerDecoderConfig,
    UpernetDecoderConfig,
)
from recyclelora.models.decoders.linear import LinearDecoder
from recyclelora.models.segmenter import Segmenter
from recyclelora.models.state import Rule
from recyclelora.system.errors import UserError

BACKBONE = "backbone.model."
"""Where the backbone's parameters are in a segmenter."""


@contextmanager
def user_errors() -> Iterator[None]:
    """A room's refusal of what the user asked for becomes the one clear line of the command."""
    try:
        yield
    except (ValueError, WeightsNotFound, WeightsUnreadable) as error:
        raise UserError(str(error)) from error


def locate_weights(backbone: BackboneConfig) -> WeightsFile | None:
    """Find the pretrained weights; None where the backbone is to stay random."""
    if not backbone.pretrained:
        return None
    with user_errors():
        return find_weights(backbone.name, backbone.hub, backbone.checkpoint)


@dataclass(frozen=True)
class Model:
    """A segmenter and how each of its trainable parameters learns."""

    segmenter: Segmenter
    rules: dict[str, Rule]
    after_step: Callable[[int], None] | None = None
    """what the adapter does when the optimizer has stepped, gradients still there"""
    training_state: TrainingState | None = None
    """what the adapter must remember from step to step besides the segmenter"""
    constrain: Callable[[Mapping[str, Tensor]], None] | None = None
    """imposes on other values of the segmenter's tensors, by name and in place, what the adapter promises of its own"""

    def initial(self) -> dict[str, Tensor]:
        """The factors the adapters started from; empty without low-rank adapters."""
        return initial_state(self.segmenter.backbone.model)  # type: ignore[arg-type]


def build_model(
    config: Config,
    weights: WeightsFile | None,
    *,
    initial: dict[str, Tensor] | None = None,
    progress: Progress | None = None,
    precision: str = "32-true",
) -> Model:
    """Build backbone, adapter and decoder.

    Args:
        config: of the run
        weights: of the backbone; None leaves it random
        initial: the adapters' initial factors from a checkpoint; None computes them
        progress: called with (layers done, layers in all, layer) while factors are computed
        precision: resolved, of the forwards: ``32-true``, ``bf16-mixed`` or ``16-mixed``

    Raises:
        UserError: shapes, patterns or weights do not fit.
    """
    with user_errors():
        backbone = build_backbone(config, weights)
        adapted = adapt(backbone, config, initial, progress, autocast=precision != "32-true")
        channels = [backbone.embed_dim] * len(backbone.levels)
        lent = None if adapted.query is None else adapted.query()
        num_classes = len(config.data.classes.names)
        decoder = build_decoder(config.decoder, channels, num_classes, lent, adapted.query_features)
    segmenter = Segmenter(
        backbone, decoder,
        mean=config.backbone.mean, std=config.backbone.std, ignore_index=IGNORE,
        padding_index=PADDING if config.data.augment.padding == "last" else None,
        query=adapted.query, penalty=adapted.penalty,
    )  # fmt: skip
    rules = {
        BACKBONE + name: Rule(f"adapter.{rule.group}", rule.lr_mult, rule.weight_decay)
        for name, rule in adapted.rules.items()
    }
    rules |= decoder_rules(decoder, config.decoder.lr_mult)
    constrain = None if adapted.constrain is None else partial(_constrain, adapted.constrain)
    return Model(segmenter, rules, adapted.after_step, adapted.training_state, constrain)


def _constrain(constrain: Callable[[Mapping[str, Tensor]], None], state: Mapping[str, Tensor]) -> None:
    """Show an adapter the tensors of its backbone, under the names that it knows them by."""
    constrain({name.removeprefix(BACKBONE): value for name, value in state.items() if name.startswith(BACKBONE)})


def check_shapes(config: Config) -> None:
    """Refuse names, patterns and shapes that no weights could make right, before any are looked for.

    The backbone is built without memory, on the meta device.

    Raises:
        UserError: naming the model, layer, pattern or rank at fault.
    """
    with user_errors(), torch.device("meta"):
        backbone = build_backbone(config, None)
        check = getattr(adapter_method(config.adapter), "check", None)
        if check is not None:
            check(backbone.model)


def build_backbone(config: Config, weights: WeightsFile | None) -> TimmBackbone:
    """The backbone, its position embedding laid out for ``backbone.image_size`` or else the training crop."""
    b = config.backbone
    height, width = b.image_size or config.data.augment.crop
    return create_backbone(
        b.model, patch_size=b.patch_size, image_size=(height, width), levels=b.levels, model_args=b.model_args,
        weights=None if weights is None else read_weights(weights),
        resampling="timm" if b.resampling == "timm" else "bicubic",
        # Random weights have no other grid than the one that is laid out.
        positions="pretrained" if weights is not None and b.positions == "pretrained" else "laid_out", seed=config.seed,
    )  # fmt: skip


def adapt(
    backbone: TimmBackbone,
    config: Config,
    initial: dict[str, Tensor] | None,
    progress: Progress | None,
    autocast: bool = False,
) -> Adapted:
    """Freeze the backbone and put the adapter in."""
    cache = FactorCache(Path(config.cache) / "factors", int(config.factor_cache_gib * 2**30))
    has_queries: bool = decoder_class(config.decoder).has_queries
    setting = Setting(config.seed, config.trainer.max_steps, cache, initial, progress, has_queries, autocast)
    return adapter_method(config.adapter).apply(backbone.model, setting)


def adapter_method(adapter: AdapterConfig) -> Method:
    """The method that a configuration describes; one from another package brings its own."""
    match adapter:
        case FrozenConfig():
            return Frozen()
        case FullConfig():
            return Full(adapter.lr_mult, adapter.weight_decay, adapter.decay_all)
        case LowRankConfig():
            return LowRank(adapter_spec(adapter))
        case DoraConfig():
            return DoRA(**method_fields(adapter))
        case VeraConfig():
            return VeRA(**method_fields(adapter))
        case AdaLoraConfig():
            return AdaLoRA(**method_fields(adapter))
        case ReinConfig():
            return Rein(**method_fields(adapter))
        case OwnAdapter():
            return adapter.method()
    raise TypeError(f"no method for {type(adapter).__name__}")


def method_fields(adapter: DoraConfig | VeraConfig | AdaLoraConfig | ReinConfig) -> dict[str, Any]:
    """A configuration's values under the names that its method gives them."""
    fields = {name: value for name, value in asdict(adapter).items() if name not in ("kind", "name")}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def adapter_spec(adapter: LowRankConfig) -> AdapterSpec:
    """The low-rank family's configuration in the adapters' own terms."""

    def branch(config: BranchConfig) -> BranchSpec:
        return BranchSpec(**asdict(config))

    fields = {name: value for name, value in asdict(adapter).items() if name not in ("kind", "name")}
    fields["targets"] = tuple(adapter.targets)
    fields["main"] = branch(adapter.main)
    fields["sub"] = None if adapter.sub is None else branch(adapter.sub)
    return AdapterSpec(**fields)


def build_decoder(
    decoder: DecoderConfig,
    channels: list[int],
    num_classes: int,
    query: Tensor | None = None,
    query_features: bool = False,
) -> nn.Module:
    """The decoder that a configuration describes.

    Args:
        decoder: its configuration
        channels: of the backbone's levels
        num_classes: of the data
        query: what the adapter will lend (num_queries, width); None where it lends nothing
        query_features: whether the queries' first features are to be made from what is lent

    Raises:
        ValueError: numbers do not fit together, or there is no place for what the adapter lends.
    """
    kind = decoder_class(decoder)
    options = {name: value for name, value in asdict(decoder).items() if name not in ("kind", "name", "lr_mult")}
    if "loss" in options:
        from recyclelora.models.decoders.mask_loss import MaskLoss

        options["loss"] = MaskLoss(**options["loss"])
    if kind.has_queries:
        options["own_queries"] = query is None
        options["own_features"] = not query_features
    if query is not None:
        _check_lent(query, decoder, kind)
    built: nn.Module = kind(channels, num_classes, **options)
    return built


def decoder_class(decoder: DecoderConfig) -> Any:
    """The class that a configuration describes; the libraries behind it are imported only now, as they take seconds."""
    match decoder:
        case LinearDecoderConfig():
            return LinearDecoder
        case Mask2FormerDecoderConfig():
            from recyclelora.models.decoders.mask2former import Mask2Former

            return Mask2Former
        case EomtDecoderConfig():
            from recyclelora.models.decoders.eomt import QueryTokens

            return QueryTokens
    from recyclelora.models.decoders import convolutional

    match decoder:
        case SegformerDecoderConfig():
            return convolutional.Segformer
        case FpnDecoderConfig():
            return convolutional.FeaturePyramid
        case UpernetDecoderConfig():
            return convolutional.UperNet
        case DptDecoderConfig():
            return convolutional.Dpt
    raise TypeError(f"no decoder for {type(decoder).__name__}")


def _check_lent(query: Tensor, decoder: DecoderConfig, kind: Any) -> None:
    """Refuse queries that the decoder has no place for: the adapter's part behind them would never learn."""
    if not kind.has_queries:
        raise ValueError(
            f"decoder={decoder.name} has no queries, but the adapter lends it some: use decoder=mask2former"
        )
    assert isinstance(decoder, Mask2FormerDecoderConfig)
    wanted = (decoder.num_queries, decoder.width)
    if tuple(query.shape) != wanted:
        raise ValueError(
            f"the adapter lends {query.shape[0]} queries of width {query.shape[1]}; the decoder has {wanted}"
        )


def decoder_rules(decoder: nn.Module, lr_mult: float) -> dict[str, Rule]:
    """What a decoder exempts from weight decay does not decay; everything else follows the optimizer."""
    undecayed = decoder.undecayed()  # type: ignore[operator]
    return {
        f"decoder.{name}": Rule("decoder.undecayed", lr_mult, 0.0) if name in undecayed else Rule("decoder", lr_mult)
        for name, _ in decoder.named_parameters()
    }
