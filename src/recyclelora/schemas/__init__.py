"""What can be configured: one dataclass for each kind of option, with the checks of its values.

Every option file under ``conf/`` attaches one of these, so that a typo is refused by name while the configuration is
composed. One file for each config group; what other rooms use is named here.
"""

from recyclelora.schemas.adapter import (
    ADAPTERS,
    AdapterConfig,
    BranchConfig,
    FrozenConfig,
    FullConfig,
    LowRankConfig,
)
from recyclelora.schemas.backbone import BackboneConfig
from recyclelora.schemas.checks import Problem, nearest
from recyclelora.schemas.commands import EvaluateConfig, ExportConfig, PredictConfig
from recyclelora.schemas.data import AugmentConfig, ClassesConfig, DataConfig, DatasetConfig, ProtocolConfig
from recyclelora.schemas.decoder import DECODERS, DecoderConfig, LinearDecoderConfig
from recyclelora.schemas.run import Config
from recyclelora.schemas.training import OptimizerConfig, TrackingConfig, TrainerConfig

__all__ = [
    "ADAPTERS",
    "DECODERS",
    "AdapterConfig",
    "AugmentConfig",
    "BackboneConfig",
    "BranchConfig",
    "ClassesConfig",
    "Config",
    "DataConfig",
    "DatasetConfig",
    "DecoderConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FrozenConfig",
    "FullConfig",
    "LinearDecoderConfig",
    "LowRankConfig",
    "OptimizerConfig",
    "PredictConfig",
    "Problem",
    "ProtocolConfig",
    "TrackingConfig",
    "TrainerConfig",
    "nearest",
]
