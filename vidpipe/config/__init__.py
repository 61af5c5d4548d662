"""Every setting, once: its default, range and help make the options, the `--help` texts and the checks of config files.

[extract]                       [train]
sampling = "uniform"            head = "statistics,lstm"
num_frames = 16                 fusion = "late"
backbone = "resnet50"           labels = "labels.csv"
"""

from vidpipe.config.extract import (
    DEFAULT_DECODER,
    DEFAULT_POSE_SIZE,
    DUPLICATES_SETTINGS,
    EXACT_DECODING,
    EXPLAIN_SETTINGS,
    FINETUNE_SETTINGS,
    PREDICT_SETTINGS,
    RAY_SETTINGS,
    SEARCH_SETTINGS,
    Decoding,
    ExtractConfig,
    Sampling,
)
from vidpipe.config.finetune import FinetuneConfig
from vidpipe.config.predict import PredictConfig
from vidpipe.config.regions import DetectorConfig
from vidpipe.config.search import DUPLICATE_THRESHOLD, ClustersConfig, EmbeddingConfig
from vidpipe.config.setting import Config, Setting, check_names, make_config, settings
from vidpipe.config.timeline import TimelineConfig
from vidpipe.config.toml import SECTIONS, load_section, save_config
from vidpipe.config.train import (
    DEFAULT_HEAD,
    HEAD_NAMES,
    LINEAR_HEADS,
    SEEDLESS_HEADS,
    EvaluateConfig,
    LabelsConfig,
    TrainConfig,
)

__all__ = [
    "DEFAULT_DECODER",
    "DEFAULT_HEAD",
    "DEFAULT_POSE_SIZE",
    "DUPLICATES_SETTINGS",
    "DUPLICATE_THRESHOLD",
    "EXACT_DECODING",
    "EXPLAIN_SETTINGS",
    "FINETUNE_SETTINGS",
    "HEAD_NAMES",
    "LINEAR_HEADS",
    "PREDICT_SETTINGS",
    "RAY_SETTINGS",
    "SEARCH_SETTINGS",
    "SECTIONS",
    "SEEDLESS_HEADS",
    "ClustersConfig",
    "Config",
    "Decoding",
    "DetectorConfig",
    "EmbeddingConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "FinetuneConfig",
    "LabelsConfig",
    "PredictConfig",
    "Sampling",
    "Setting",
    "TimelineConfig",
    "TrainConfig",
    "check_names",
    "load_section",
    "make_config",
    "save_config",
    "settings",
]
