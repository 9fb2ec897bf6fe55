"""What all gates share: the contract, and the linear scores that several of them start from.

Every gate is called as ``gate(x_TD, features_TER, shape)`` and returns a `Routing`. Scores are float32 (float64 for
float64 input) whatever the autocast type, since a rounded score routes a token elsewhere.

Shapes: T tokens, D width, E experts, R rank of the experts' own features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..routing import Routing
from ..spec import FixedK, GateSpec

ROUTER_STD = 0.02  # of learned and of frozen random routers alike


class Gate(nn.Module):
    """What the layer asks of a gate.

    spec: what it was built from. scores_features: whether it reads the experts' own features of every token.
    """

    spec: GateSpec
    scores_features = False

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        raise NotImplementedError

    @property
    def flops_per_token(self) -> int:
        """FLOPs of scoring one token, 2 a multiply-add; norms and softmax are not counted."""
        return 0


class LinearScores(nn.Module):
    """``x W`` in float32 at least; W (E, D) is the module's weight."""

    def __init__(self, dim: int, num_experts: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, dim))
        nn.init.normal_(self.weight, std=ROUTER_STD)

    def forward(self, x_TD: Tensor) -> Tensor:
        with torch.autocast(x_TD.device.type, enabled=False):
            x_TD = at_least_float32(x_TD)
            return nn.functional.linear(x_TD, self.weight.to(x_TD.dtype))


class RouterGate(Gate):
    """A gate whose scores are ``x W``."""

    def __init__(self, dim: int, num_experts: int, spec: GateSpec):
        super().__init__()
        self.spec = spec
        self.router = LinearScores(dim, num_experts)

    @property
    def flops_per_token(self) -> int:
        return 2 * self.router.weight.numel()


def at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def softmax_over(spec: FixedK) -> str:
    """The weights of `route_top_k` that a spec asks for."""
    return "selected" if spec.renormalize else "all"
