"""The schema of a run: every key a config may hold, its type, its range and its one default."""

from .images import (
    DIGITS,
    AugmentConfig,
    ImageDataConfig,
    ImageEntry,
    ImageRunConfig,
    ImageTrainConfig,
    ProgressiveConfig,
    TimmConfig,
)
from .run import DataConfig, ModelConfig, OptimizerConfig, RunConfig, ScheduleConfig, TrainConfig
from .text import PYTHON, Gpt2Config, TextDataConfig, TextEntry, TextRunConfig

# What a run's `task` may be, and the schema that goes with it; a config without one is about images.
TASKS: dict[str, type[RunConfig]] = {"images": ImageRunConfig, "text": TextRunConfig}
DEFAULT_TASK = "images"

__all__ = [
    "DEFAULT_TASK",
    "DIGITS",
    "PYTHON",
    "TASKS",
    "AugmentConfig",
    "DataConfig",
    "Gpt2Config",
    "ImageDataConfig",
    "ImageEntry",
    "ImageRunConfig",
    "ImageTrainConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ProgressiveConfig",
    "RunConfig",
    "ScheduleConfig",
    "TextDataConfig",
    "TextEntry",
    "TextRunConfig",
    "TimmConfig",
    "TrainConfig",
]
