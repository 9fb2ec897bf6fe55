"""What a MoE layer is made of, as plain values: the one place where its hyperparameters have defaults.

A spec is immutable, compares by value, and turns into nested dictionaries of plain values with
`dataclasses.asdict`, which is how it travels in a checkpoint. Its ``kind`` selects the class that computes it
(`vmoe.moe.build`). Impossible values raise `ValueError` at construction. `vmoe.config` reads the same classes
from YAML.
"""

from .base import require
from .experts import ExpertSpec, Glu, LowRankGlu, Mlp
from .gates import (
    AutonomyOfExperts,
    Dense,
    ExpertChoice,
    FixedK,
    GateSpec,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
)
from .moe import MoESpec

__all__ = [
    "AutonomyOfExperts",
    "Dense",
    "ExpertChoice",
    "ExpertSpec",
    "FixedK",
    "GateSpec",
    "Glu",
    "LowRankGlu",
    "Mlp",
    "MoESpec",
    "Random",
    "Relu",
    "RoutingFree",
    "SelfRouting",
    "Soft",
    "TopK",
    "require",
]
