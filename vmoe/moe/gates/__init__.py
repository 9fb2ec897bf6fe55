"""Gates: from tokens to a Routing, one class a method."""

from .base import Gate
from .expert_choice import ExpertChoiceGate
from .features import AutonomyOfExpertsGate, RoutingFreeGate
from .hashed import HashGate
from .relu import ReluGate
from .self_routing import SelfGate
from .soft import SoftGate
from .topk import FixedRandomGate, TopKGate

__all__ = [
    "AutonomyOfExpertsGate",
    "ExpertChoiceGate",
    "FixedRandomGate",
    "Gate",
    "HashGate",
    "ReluGate",
    "RoutingFreeGate",
    "SelfGate",
    "SoftGate",
    "TopKGate",
]
