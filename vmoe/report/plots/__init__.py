"""Plots. They need matplotlib, and draw on its figure objects alone: no global state, no display."""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("plots need matplotlib: pip install 'vmoe[report]'") from error

from .accuracy import accuracy_against_training, accuracy_at_thresholds, save_accuracy_against_training, save_sweep
from .load import expert_load, no_experts, save_expert_load

__all__ = [
    "accuracy_against_training",
    "accuracy_at_thresholds",
    "expert_load",
    "no_experts",
    "save_accuracy_against_training",
    "save_expert_load",
    "save_sweep",
]
