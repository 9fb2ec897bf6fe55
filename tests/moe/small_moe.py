"""Small MoE layers for the tests of `vmoe.moe`, and their experts written out token by token."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from vmoe.moe import (
    AutonomyOfExperts,
    Balance,
    Dense,
    ExpertChoice,
    Glu,
    HostMlp,
    LowRankGlu,
    Mlp,
    MoE,
    MoESpec,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
    balance_for,
    build_moe,
)

torch.set_num_threads(1)  # tensors this small only get slower on several

DIM = 12

# Every gate with every experts it can score by.
COMBINATIONS = {
    f"{name}-{experts.kind}": MoESpec(gate=gate, experts=experts, num_experts=4)
    for name, gate in {
        "topk": TopK(k=2),
        "self": SelfRouting(k=2),
        "fixed": Random(k=2, source="fixed"),
        "uniform": Random(k=2, source="uniform"),
        "hash": Random(k=2, source="hash"),
        "aoe": AutonomyOfExperts(k=2),
        "relu": Relu(k=2),
        "routing_free": RoutingFree(start=1.0),  # near the threshold, so that some pairs are active and some are not
        "expert_choice": ExpertChoice(capacity_factor=2.0),
        "soft": Soft(slots=2),
    }.items()
    for experts in (Mlp(hidden=16), Glu(hidden=16), LowRankGlu(hidden=16, rank=6))
    if not gate.SCORES_FEATURES or isinstance(experts, LowRankGlu)
}


def build(spec: MoESpec, dim: int = DIM, host_hidden: int = 4 * DIM, seed: int = 0, **host) -> MoE:
    """A layer whose weights are large enough to matter and whose biases are not 0."""
    torch.manual_seed(seed)
    described = {"std_in": 0.3, "std_out": 0.3, "bias": True, "tokens": 9} | host
    layer = build_moe(spec, HostMlp(dim=dim, hidden=host_hidden, activation=nn.GELU(), **described))
    for name, parameter in layer.experts.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return layer


def balance_of(gate) -> Balance:
    """The balance that layers with this gate prescribe."""
    return Balance() if isinstance(gate, Dense) else balance_for(build(MoESpec(gate=gate, num_experts=4)))


def tokens(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows of mean 0 and mean square 1, as a block's norm gives them."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.layer_norm(x, x.shape[-1:]).to(dtype)


def one_expert(layer: MoE, e: int, x_D: torch.Tensor) -> torch.Tensor:
    """Expert e on one token, by the formulas of the methods."""
    weights = {name: parameter[e] for name, parameter in layer.experts.named_parameters()}
    act = layer.experts.activation
    if "fc1.weight" in weights:
        hidden = act(weights["fc1.weight"] @ x_D + weights["fc1.bias"])
        return weights["fc2.weight"] @ hidden + weights["fc2.bias"]
    if "gate.weight" in weights:
        hidden = act(weights["gate.weight"] @ x_D) * (weights["up.weight"] @ x_D)
    else:
        z = weights["gate_down.weight"] @ x_D
        hidden = act(weights["gate_up.weight"] @ z) * (weights["up.weight"] @ x_D)
    return weights["down.weight"] @ hidden
