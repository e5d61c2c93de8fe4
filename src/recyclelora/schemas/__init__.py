"""What can be configured: one dataclass for each kind of option, with the checks of its values.

Every option file under ``conf/`` attaches one of these, so that a typo is refused by name while the configuration is
composed. One file for each config group; what other rooms use is named here.
"""

from recyclelora.schemas.adapter import (
    ADAPTERS,
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
from recyclelora.schemas.backbone import BackboneConfig
from recyclelora.schemas.checks import Problem, file_name, nearest
from recyclelora.schemas.commands import (
    AnalyzeConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    InspectConfig,
    PredictConfig,
    RepeatConfig,
    ReportConfig,
)
from recyclelora.schemas.data import AugmentConfig, ClassesConfig, DataConfig, DatasetConfig, ProtocolConfig
from recyclelora.schemas.decoder import (
    DECODERS,
    DecoderConfig,
    DptDecoderConfig,
    EomtDecoderConfig,
    FpnDecoderConfig,
    LinearDecoderConfig,
    Mask2FormerDecoderConfig,
    MaskLossConfig,
    SegformerDecoderConfig,
    UpernetDecoderConfig,
)
from recyclelora.schemas.folder import CodingConfig, FolderConfig, SplitConfig, class_index, parse_colour
from recyclelora.schemas.run import Config
from recyclelora.schemas.training import OptimizerConfig, TrackingConfig, TrainerConfig

__all__ = [
    "ADAPTERS",
    "DECODERS",
    "AdaLoraConfig",
    "AdapterConfig",
    "AnalyzeConfig",
    "AugmentConfig",
    "BackboneConfig",
    "BranchConfig",
    "ClassesConfig",
    "CodingConfig",
    "Config",
    "DataConfig",
    "DatasetConfig",
    "DecoderConfig",
    "DoraConfig",
    "DptDecoderConfig",
    "EomtDecoderConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FolderConfig",
    "FpnDecoderConfig",
    "FrozenConfig",
    "FullConfig",
    "ImportConfig",
    "InspectConfig",
    "LinearDecoderConfig",
    "LowRankConfig",
    "Mask2FormerDecoderConfig",
    "MaskLossConfig",
    "OptimizerConfig",
    "OwnAdapter",
    "PredictConfig",
    "Problem",
    "ProtocolConfig",
    "ReinConfig",
    "RepeatConfig",
    "ReportConfig",
    "SegformerDecoderConfig",
    "SplitConfig",
    "TrackingConfig",
    "TrainerConfig",
    "UpernetDecoderConfig",
    "VeraConfig",
    "class_index",
    "file_name",
    "nearest",
    "parse_colour",
]
