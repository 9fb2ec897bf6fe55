"""The core: MoE layers for any host. It needs torch alone and knows no backbone, no data, no training loop.

x → gate → `Routing` → dispatch → experts → y, in `MoE`; losses and controllers in `balance`; figures in `stats`.
"""

from .balance import Balance, balance_for
from .build import HostMlp, build_dense, build_moe
from .dispatch import ExpertPlace
from .experts import Experts, GluExperts, LowRankGluExperts, MlpExperts
from .figures import LoadFigures, RoutingFigures, mean_figures
from .gates import Gate
from .layer import DenseExperts, MoE, moe_layers
from .losses import relu_loss, routing_free_loss, switch_loss, z_loss
from .mode import evaluating
from .record import Record, record
from .routing import Routing
from .spec import (
    AutonomyOfExperts,
    Dense,
    ExpertChoice,
    ExpertSpec,
    FixedK,
    GateSpec,
    Glu,
    LowRankGlu,
    Mlp,
    MoESpec,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
)
from .stats import LoadStats, RoutingStats
from .threshold import at_threshold
from .upcycle import DenseMlp

__all__ = [
    "AutonomyOfExperts",
    "Balance",
    "Dense",
    "DenseExperts",
    "DenseMlp",
    "ExpertChoice",
    "ExpertPlace",
    "ExpertSpec",
    "Experts",
    "FixedK",
    "Gate",
    "GateSpec",
    "Glu",
    "GluExperts",
    "HostMlp",
    "LoadFigures",
    "LoadStats",
    "LowRankGlu",
    "LowRankGluExperts",
    "Mlp",
    "MlpExperts",
    "MoE",
    "MoESpec",
    "Random",
    "Record",
    "Relu",
    "Routing",
    "RoutingFigures",
    "RoutingFree",
    "RoutingStats",
    "SelfRouting",
    "Soft",
    "TopK",
    "at_threshold",
    "balance_for",
    "build_dense",
    "build_moe",
    "evaluating",
    "mean_figures",
    "moe_layers",
    "record",
    "relu_loss",
    "routing_free_loss",
    "switch_loss",
    "z_loss",
]
