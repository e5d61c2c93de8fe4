"""From a checked configuration to the model of a run. Nothing is built from a user's import path: the kinds of parts
are the ones written here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recyclelora.adapters.calibration.config import CalibrationConfig
from recyclelora.adapters.calibration.measure import ImagePass
from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.adapters.linalg.factorize import Progress
from recyclelora.adapters.method import Adapted, AdapterContext, TrainingState
from recyclelora.adapters.state import initial_state
from recyclelora.config.run import Config
from recyclelora.data.labels import IGNORE, PADDING
from recyclelora.models.backbones.config import BackboneConfig
from recyclelora.models.backbones.inner import InnerBlocks
from recyclelora.models.backbones.timm import TimmBackbone, create_backbone
from recyclelora.models.backbones.weights import (
    WeightsFile,
    WeightsNotFound,
    WeightsUnreadable,
    find_weights,
    read_weights,
)
from recyclelora.models.decoders.config import check_installed
from recyclelora.models.decoders.decoder import DenseDecoder
from recyclelora.models.decoders.loss_options import PixelLossConfig
from recyclelora.models.decoders.pixel_loss import PixelLoss
from recyclelora.models.losses.loss import ExtraLoss
from recyclelora.models.segmenter import Segmenter
from recyclelora.models.shown import ShownImages, ShownModel
from recyclelora.system.errors import UserError
from recyclelora.system.parameter_rule import ParameterRule, decayed_by_layer

BACKBONE = "backbone.model."
"""Where the backbone's parameters are in a segmenter."""
ADAPTER = "adapter."
"""What the names of their groups in the optimizer begin with."""


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
    rules: dict[str, ParameterRule]
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
    images: ShownImages | None = None,
) -> Model:
    """Build backbone, adapter and decoder.

    Args:
        config: of the run
        weights: of the backbone; None leaves it random
        initial: the adapters' initial factors from a checkpoint; None computes them
        progress: called with (layers done, layers in all, layer) while factors are computed
        precision: resolved, of the forwards: ``32-true``, ``bf16-mixed`` or ``16-mixed``
        images: what an adapter that starts from data looks at, unless ``initial`` is given

    Raises:
        UserError: shapes, patterns or weights do not fit, or there are no images to start from.
    """
    with user_errors():
        backbone = build_backbone(config, weights)
        pretrained = {name for name, _ in backbone.model.named_parameters()}
        adapted = adapt(
            backbone, config, initial, progress, autocast=precision != "32-true",
            images=images if initial is None else None,
        )  # fmt: skip
        channels = [backbone.embed_dim] * len(backbone.levels)
        lent = None if adapted.query is None else adapted.query()
        num_classes = len(config.data.classes.names)
        decoder = build_decoder(config.decoder, channels, num_classes, lent, adapted.query_features, backbone)
        if isinstance(decoder, DenseDecoder) and isinstance(
            loss := getattr(config.decoder, "loss", None), PixelLossConfig
        ):
            decoder.pixel_loss = PixelLoss(loss, config.data.classes.names)
        extra_losses = [build_loss(options, channels, num_classes) for options in config.losses.values()]
    segmenter = _segmenter(config, backbone, decoder, extra_losses, adapted)
    learning = decayed_by_layer(adapted.rules, config.optimizer.layer_decay, backbone.depth, pretrained)
    rules = {BACKBONE + name: replace(rule, group=ADAPTER + rule.group) for name, rule in learning.items()}
    rules |= decoder_rules(decoder, getattr(config.decoder, "lr_mult", 1.0))
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
    check_installed(config.decoder)
    with user_errors(), torch.device("meta"):
        backbone = build_backbone(config, None)
        if is_inside(config.decoder):
            InnerBlocks(backbone, config.decoder.num_blocks)
        check = getattr(config.adapter.method(), "check", None)
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
        final_norm=is_inside(config.decoder), mapped=config.trainer.strategy == "fsdp",
    )  # fmt: skip


def adapt(
    backbone: TimmBackbone,
    config: Config,
    initial: dict[str, Tensor] | None,
    progress: Progress | None,
    autocast: bool = False,
    images: ShownImages | None = None,
) -> Adapted:
    """Freeze the backbone and put the adapter in."""
    context = AdapterContext(
        config.seed, config.trainer.max_steps, _factor_cache(config), initial, progress,
        has_queries=getattr(config.decoder, "has_queries", False), autocast=autocast,
    )  # fmt: skip
    method = config.adapter.method()
    with nullcontext() if images is None else calibration_pass(backbone, config, images) as calibration:
        adapted: Adapted = method.apply(backbone.model, replace(context, calibration=calibration))
    return adapted


def calibration_of(config: Config, *, always: bool = False) -> CalibrationConfig | None:
    """What the run's adapter wants to look at; None, or with ``always`` the defaults, where it starts without data."""
    wanted: CalibrationConfig | None = config.adapter.calibration if getattr(config.adapter, "looks_at", ()) else None
    return wanted or (CalibrationConfig() if always else None)


@contextmanager
def calibration_pass(backbone: TimmBackbone, config: Config, images: ShownImages) -> Iterator[ImagePass]:
    """A pass of images through a backbone that is not adapted, which is on their device meanwhile."""
    build = partial(_unadapted, backbone, config)
    model = ShownModel(images, build, config.seed, config.trainer.checkpointing)
    seen: list[object] = [images.digest, config.backbone.model, config.backbone.mean, config.backbone.std]
    seen += [config.data.augment.padding, config.decoder, config.losses, config.seed] if images.labelled else []
    digest = hashlib.sha256("\n".join(map(repr, seen)).encode()).hexdigest()
    loss = model.loss if images.labelled else None
    training = backbone.training
    backbone.to(images.device)
    try:
        yield ImagePass(images.count, digest, model.forward, loss, _factor_cache(config), progress=images.progress)
    finally:
        backbone.cpu().train(training)


def _factor_cache(config: Config) -> FactorCache:
    return FactorCache(Path(config.cache) / "factors", int(config.factor_cache_gib * 2**30))


def _unadapted(backbone: TimmBackbone, config: Config, whole: bool) -> Segmenter:
    """A segmenter around a backbone before it is adapted; ``whole``: with the decoder that training will begin with."""
    channels, num_classes = [backbone.embed_dim] * len(backbone.levels), len(config.data.classes.names)
    decoder: nn.Module = nn.Identity()
    extra_losses: list[ExtraLoss] = []
    if whole:
        with torch.random.fork_rng(devices=[]):  # the run's own decoder comes from the same numbers
            decoder = build_decoder(config.decoder, channels, num_classes, backbone=backbone)
        extra_losses = [build_loss(options, channels, num_classes) for options in config.losses.values()]
    return _segmenter(config, backbone, decoder, extra_losses)


def _segmenter(
    config: Config, backbone: TimmBackbone, decoder: nn.Module, extra_losses: list[ExtraLoss],
    adapted: Adapted | None = None,
) -> Segmenter:  # fmt: skip
    """The parts in one module, with what the adapter has to say in it."""
    return Segmenter(
        backbone, decoder,
        mean=config.backbone.mean, std=config.backbone.std, ignore_index=IGNORE,
        padding_index=PADDING if config.data.augment.padding == "last" else None,
        query=adapted.query if adapted else None, penalty=adapted.penalty if adapted else None,
        extra_losses=extra_losses, max_steps=config.trainer.max_steps,
    )  # fmt: skip


def build_decoder(
    options: Any,
    channels: list[int],
    num_classes: int,
    query: Tensor | None = None,
    query_features: bool = False,
    backbone: TimmBackbone | None = None,
) -> nn.Module:
    """The decoder that options describe.

    Args:
        options: of the group ``decoder``
        channels: of the backbone's levels
        num_classes: of the data
        query: what the adapter will lend (num_queries, width); None where it lends nothing
        query_features: whether the queries' first features are to be made from what is lent
        backbone: whose last blocks the decoder runs, where its options say ``inside``

    Raises:
        ValueError: numbers do not fit together, or there is no place for what the adapter lends: its part behind it
            would never learn.
    """
    check_installed(options)
    lent = () if query is None else (query, query_features)
    if lent and not getattr(options, "has_queries", False):
        raise ValueError(
            f"decoder={options.name} has no queries, but the adapter lends it some: use decoder=mask2former"
        )
    inner = {"inner": InnerBlocks(backbone, options.num_blocks)} if backbone is not None and is_inside(options) else {}
    decoder: nn.Module = options.build(channels, num_classes, *lent, **inner)
    return decoder


def is_inside(options: Any) -> bool:
    """Whether the decoder of these options runs the last blocks of the backbone, its queries among their tokens."""
    return bool(getattr(options, "inside", False))


def build_loss(options: Any, channels: list[int], num_classes: int) -> ExtraLoss:
    """The loss that options describe, for these levels and classes.

    Raises:
        ValueError: it has parameters, which nothing would train or store.
    """
    loss: ExtraLoss = options.build(channels, num_classes)
    if isinstance(loss, nn.Module) and list(loss.parameters()):
        raise ValueError(f"losses.{options.name}: must have no parameters of its own: they would never learn")
    return loss


def decoder_rules(decoder: nn.Module, lr_mult: float) -> dict[str, ParameterRule]:
    """What a decoder exempts from weight decay does not decay; everything else follows the optimizer."""
    undecayed = decoder.undecayed()  # type: ignore[operator]
    rules = {False: ParameterRule(lr_mult, None, "decoder"), True: ParameterRule(lr_mult, 0.0, "decoder.undecayed")}
    return {f"decoder.{name}": rules[name in undecayed] for name, _ in decoder.named_parameters()}
