"""The core: MoE layers for any host. It needs torch alone and knows no backbone, no data, no training loop.

x → gate → `Routing` → dispatch → experts → y, in `MoE`; losses and controllers in `balance`; figures in `stats`.
"""

from .balance import Balance, balance_for, build_balance, routing_free_loss, switch_loss, z_loss
from .build import HostMlp, build_moe
from .experts import Experts, GluExperts, LowRankGluExperts, MlpExperts
from .gates import Gate
from .layer import MoE, moe_layers
from .record import Record, record
from .routing import Routing
from .spec import (
    Dense,
    ExpertSpec,
    FixedK,
    GateSpec,
    Glu,
    LowRankGlu,
    Mlp,
    MoESpec,
    Random,
    RoutingFree,
    SelfRouting,
    TopK,
)
from .stats import RoutingFigures, RoutingStats, mean_figures

__all__ = [
    "Balance",
    "Dense",
    "ExpertSpec",
    "Experts",
    "FixedK",
    "Gate",
    "GateSpec",
    "Glu",
    "GluExperts",
    "HostMlp",
    "LowRankGlu",
    "LowRankGluExperts",
    "Mlp",
    "MlpExperts",
    "MoE",
    "MoESpec",
    "Random",
    "Record",
    "Routing",
    "RoutingFigures",
    "RoutingFree",
    "RoutingStats",
    "SelfRouting",
    "TopK",
    "balance_for",
    "build_balance",
    "build_moe",
    "mean_figures",
    "moe_layers",
    "record",
    "routing_free_loss",
    "switch_loss",
    "z_loss",
]
