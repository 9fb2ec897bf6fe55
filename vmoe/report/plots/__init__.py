"""Plots. They need matplotlib, and draw on its figure objects alone: no global state, no display."""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("plots need matplotlib: pip install 'vmoe[report]'") from error

from .canvas import save_png
from .labels import label_load
from .layers import entropy_by_layer, experts_per_token
from .lines import band, curves
from .load import expert_load, no_experts, save_expert_load
from .maps import favourite_patches, routing_map, routing_maps
from .pairs import co_activation
from .points import score_against
from .positions import position_load
from .svg import themed_svg
from .thresholds import accuracy_at_thresholds, save_sweep
from .time import dynamics, load_over_time, stability

__all__ = [
    "accuracy_at_thresholds",
    "band",
    "co_activation",
    "curves",
    "dynamics",
    "entropy_by_layer",
    "expert_load",
    "experts_per_token",
    "favourite_patches",
    "label_load",
    "load_over_time",
    "no_experts",
    "position_load",
    "routing_map",
    "routing_maps",
    "save_expert_load",
    "save_png",
    "save_sweep",
    "score_against",
    "stability",
    "themed_svg",
]
