"""The config of a run: its schema, and how it is read from YAML files and overrides."""

from .errors import ConfigError
from .read import dump_config, load_config, override_config, parse_moe, validate
from .schema import (
    DIGITS,
    PYTHON,
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    Gpt2Config,
    ImageDataConfig,
    ImageRunConfig,
    ImageTrainConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TextDataConfig,
    TextRunConfig,
    TimmConfig,
    TrainConfig,
)

__all__ = [
    "DIGITS",
    "PYTHON",
    "AugmentConfig",
    "CheckpointConfig",
    "ConfigError",
    "DataConfig",
    "Gpt2Config",
    "ImageDataConfig",
    "ImageRunConfig",
    "ImageTrainConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "TextDataConfig",
    "TextRunConfig",
    "TimmConfig",
    "TrainConfig",
    "dump_config",
    "load_config",
    "override_config",
    "parse_moe",
    "validate",
]
