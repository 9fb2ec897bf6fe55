"""How a model lies on the processes of a run: whole on each, its blocks cut into parts, its experts dealt out."""

from .build import build_layout
from .gather import gather_optimizer, gather_weights, load_optimizer, load_weights
from .layout import Layout

__all__ = [
    "Layout",
    "build_layout",
    "gather_optimizer",
    "gather_weights",
    "load_optimizer",
    "load_weights",
]
