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
from .parallel import ParallelConfig
from .run import CheckpointConfig, DataConfig, ModelConfig, OptimizerConfig, RunConfig, ScheduleConfig, TrainConfig
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
    "CheckpointConfig",
    "DataConfig",
    "Gpt2Config",
    "ImageDataConfig",
    "ImageEntry",
    "ImageRunConfig",
    "ImageTrainConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "ProgressiveConfig",
    "RunConfig",
    "ScheduleConfig",
    "TextDataConfig",
    "TextEntry",
    "TextRunConfig",
    "TimmConfig",
    "TrainConfig",
]
