"""The config of a run: its schema, and how it is read from YAML files and overrides."""

from .errors import ConfigError
from .read import dump_config, load_config, override_config, parse_moe, validate
from .schema import (
    DIGITS,
    AugmentConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)

__all__ = [
    "DIGITS",
    "AugmentConfig",
    "ConfigError",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "TrainConfig",
    "dump_config",
    "load_config",
    "override_config",
    "parse_moe",
    "validate",
]
