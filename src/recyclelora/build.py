"""From a checked configuration to the parts of a run. Nothing is built from a user's import path: the kinds of parts
are the ones written here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from recyclelora.adapters.factor_cache import FactorCache, Progress
from recyclelora.adapters.inject import LowRank
from recyclelora.adapters.method import Adapted, Method, Setting
from recyclelora.adapters.spec import AdapterSpec, BranchSpec
from recyclelora.adapters.state import initial_state
from recyclelora.adapters.whole import Frozen, Full
from recyclelora.backbones.timm import TimmBackbone, create_backbone
from recyclelora.backbones.weights import WeightsFile, WeightsNotFound, WeightsUnreadable, find_weights, read_weights
from recyclelora.data.datasets import Dataset, open_dataset, seeded_subset
from recyclelora.data.decode_cache import kept_decoded
from recyclelora.data.extras import Extras
from recyclelora.data.photometric import Photometric
from recyclelora.data.rare_classes import ClassCounts, RareClasses
from recyclelora.data.transforms import Augmentation
from recyclelora.decoders.linear import LinearDecoder
from recyclelora.engine.evaluation import Protocol
from recyclelora.engine.optimizer import Rule
from recyclelora.errors import UserError
from recyclelora.figures import ClassColours
from recyclelora.schemas import (
    AdapterConfig,
    BackboneConfig,
    BranchConfig,
    Config,
    DataConfig,
    DatasetConfig,
    FrozenConfig,
    FullConfig,
    LinearDecoderConfig,
    LowRankConfig,
    ProtocolConfig,
)
from recyclelora.segmenter import Segmenter

Part = TypeVar("Part")

BACKBONE = "backbone.model."
"""Where the backbone's parameters are in a segmenter."""


@contextmanager
def user_errors() -> Iterator[None]:
    """A room's refusal of what the user asked for becomes the one clear line of the command."""
    try:
        yield
    except (ValueError, WeightsNotFound, WeightsUnreadable) as error:
        raise UserError(str(error)) from error


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Datasets:
    """The open datasets of a run; ``scored`` maps result names to datasets, ``source_val`` first."""

    sources: list[Dataset]
    scored: dict[str, Dataset]

    @property
    def all(self) -> list[Dataset]:
        """Sources and scored sets."""
        return [*self.sources, *self.scored.values()]


def build_datasets(data: DataConfig, cache: str) -> Datasets:
    """Open every dataset of a pair; streets are cached below ``cache``.

    Raises:
        UserError: listing everything that is not there.
    """
    scored = {"source_val": data.source_val} | {target.label: target for target in data.targets}
    opened = open_all([*data.sources, *scored.values()], data, cache)
    sources = opened[: len(data.sources)]
    return Datasets(sources, dict(zip(scored, opened[len(sources) :], strict=True)))


def build_targets(data: DataConfig, cache: str) -> dict[str, Dataset]:
    """Open only the targets of a pair: scoring a finished run needs no source."""
    opened = open_all(data.targets, data, cache)
    return {target.label: dataset for target, dataset in zip(data.targets, opened, strict=True)}


def open_all(configs: list[DatasetConfig], data: DataConfig, cache: str) -> list[Dataset]:
    """Open datasets in their order; a UserError lists all that are not there."""
    opened: list[Dataset] = []
    problems: list[str] = []
    for config in configs:
        try:
            dataset = open_dataset(
                config.dataset, config.split, root=Path(data.root).expanduser(), name=config.name,
                seed=data.subset_seed, cache_dir=Path(cache) / "streets",
            )  # fmt: skip
            dataset = kept_decoded(dataset, Path(cache) / "decoded", data.decode_cache)
            opened.append(seeded_subset(dataset, config.subset, data.subset_seed))
        except UserError as error:
            problems.append(str(error))
    if problems:
        advice = (
            "set DATA_ROOT or data.root to the folder that holds one folder for each dataset; data=streets needs none"
        )
        raise UserError("\n".join([*dict.fromkeys(problems), advice]))
    return opened


def build_rare_classes(
    data: DataConfig,
    sources: list[Dataset],
    cache: str,
    counting: Callable[[int], AbstractContextManager[Callable[[int], None]]],
) -> list[RareClasses | None]:
    """What rare-class sampling needs to know of each source; Nones where it is off.

    Sources that were never counted are counted, under a bar that ``counting`` opens for so many images.

    Raises:
        UserError: a sample cannot be read, or a source has no labels.
    """
    rare = data.rare_classes
    if rare.temperature is None:
        return [None] * len(sources)
    store = ClassCounts(Path(cache) / "class_counts", len(data.classes.names))
    found = [store.load(source) for source in sources]
    missing = sum(len(source) for source, counts in zip(sources, found, strict=True) if counts is None)
    with counting(missing) if missing else nullcontext(lambda count: None) as advance:
        counted = [store.count(s, advance) if c is None else c for s, c in zip(sources, found, strict=True)]
    return [
        RareClasses.of(
            counts, temperature=rare.temperature, image_pixels=rare.image_pixels, crop_pixels=rare.crop_pixels
        )
        for counts in counted
    ]


def build_augmentation(data: DataConfig) -> Augmentation:
    """The published training augmentation."""
    return _of_fields(Augmentation, data, colours=_of_fields(Photometric, data))


def build_extras(data: DataConfig) -> Extras:
    """Augmentations beyond the published ones."""
    return _of_fields(Extras, data)


def _of_fields(kind: type[Part], data: DataConfig, **given: object) -> Part:
    """An immutable part from the augmentation's keys of the same names."""
    names = {field.name for field in fields_of(kind)} - given.keys()  # type: ignore[arg-type]
    values = {name: getattr(data.augment, name) for name in names}
    return kind(**given, **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def build_protocol(protocol: ProtocolConfig) -> Protocol:
    """The test protocol."""
    fields = asdict(protocol)
    return Protocol(**(fields | {"sizes": {name: (size[0], size[1]) for name, size in protocol.sizes.items()}}))


def class_colours(data: DataConfig) -> ClassColours:
    """Names and colours for pictures."""
    return ClassColours(data.classes.names, data.classes.colours, data.classes.ignore_index)


# --- model ------------------------------------------------------------------------------------------------------------


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

    def initial(self) -> dict[str, Tensor]:
        """The factors the adapters started from; empty without low-rank adapters."""
        return initial_state(self.segmenter.backbone.model)  # type: ignore[arg-type]


def build_model(
    config: Config,
    weights: WeightsFile | None,
    *,
    initial: dict[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> Model:
    """Build backbone, adapter and decoder.

    Args:
        config: of the run
        weights: of the backbone; None leaves it random
        initial: the adapters' initial factors from a checkpoint; None computes them
        progress: called with (layers done, layers in all, layer) while factors are computed

    Raises:
        UserError: shapes, patterns or weights do not fit.
    """
    with user_errors():
        backbone = build_backbone(config, weights)
        adapted = adapt(backbone, config, initial, progress)
    decoder = build_decoder(config, backbone)
    segmenter = Segmenter(
        backbone, decoder,
        mean=config.backbone.mean, std=config.backbone.std, ignore_index=config.data.classes.ignore_index,
        query=adapted.query, penalty=adapted.penalty,
    )  # fmt: skip
    rules = {
        BACKBONE + name: Rule(f"adapter.{rule.group}", rule.lr_mult, rule.weight_decay)
        for name, rule in adapted.rules.items()
    }
    return Model(segmenter, rules | decoder_rules(decoder, config.decoder.lr_mult), adapted.after_step)


def build_backbone(config: Config, weights: WeightsFile | None) -> TimmBackbone:
    """The backbone, its position embedding laid out for ``backbone.image_size`` or else the training crop."""
    b = config.backbone
    height, width = b.image_size or config.data.augment.crop
    return create_backbone(
        b.model, patch_size=b.patch_size, image_size=(height, width), levels=b.levels, model_args=b.model_args,
        weights=None if weights is None else read_weights(weights),
        resampling="timm" if b.resampling == "timm" else "bicubic", seed=config.seed,
    )  # fmt: skip


def adapt(
    backbone: TimmBackbone, config: Config, initial: dict[str, Tensor] | None, progress: Progress | None
) -> Adapted:
    """Freeze the backbone and put the adapter in."""
    cache = FactorCache(Path(config.cache) / "factors")
    setting = Setting(config.seed, config.trainer.max_steps, cache, initial, progress)
    return adapter_method(config.adapter).apply(backbone.model, setting)


def adapter_method(adapter: AdapterConfig) -> Method:
    """The method that a configuration describes."""
    match adapter:
        case FrozenConfig():
            return Frozen()
        case FullConfig():
            return Full(adapter.lr_mult, adapter.weight_decay)
        case LowRankConfig():
            return LowRank(adapter_spec(adapter))
    raise TypeError(f"no method for {type(adapter).__name__}")


def adapter_spec(adapter: LowRankConfig) -> AdapterSpec:
    """The low-rank family's configuration in the adapters' own terms."""

    def branch(config: BranchConfig) -> BranchSpec:
        return BranchSpec(**asdict(config))

    fields = {name: value for name, value in asdict(adapter).items() if name not in ("kind", "name")}
    fields["targets"] = tuple(adapter.targets)
    fields["main"] = branch(adapter.main)
    fields["sub"] = None if adapter.sub is None else branch(adapter.sub)
    return AdapterSpec(**fields)


def build_decoder(config: Config, backbone: TimmBackbone) -> nn.Module:
    """The decoder for the backbone's four levels."""
    decoder: LinearDecoderConfig = config.decoder
    channels = [backbone.embed_dim] * len(backbone.levels)
    return LinearDecoder(channels, len(config.data.classes.names), decoder.dropout)


def decoder_rules(decoder: nn.Module, lr_mult: float) -> dict[str, Rule]:
    """Norms do not decay; everything else follows the optimizer."""
    norms = {
        f"{path}.{name}"
        for path, module in decoder.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters()
    }
    return {
        f"decoder.{name}": Rule("decoder.norm", lr_mult, 0.0) if name in norms else Rule("decoder", lr_mult)
        for name, _ in decoder.named_parameters()
    }
