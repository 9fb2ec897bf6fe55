"""ReMoE: a linear router with ReLU in place of top-k and softmax.

Shapes: T tokens, D width, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..routing import Routing, route_positive
from ..spec import Relu
from .base import Gate, LinearScores


class ReluGate(Gate):
    """``R(x) = relu(x W)`` weighs experts, and is above 0 for the active ones (ReMoE, arXiv 2412.14711, section 3)."""

    spec: Relu

    def __init__(self, dim: int, num_experts: int, spec: Relu):
        super().__init__()
        self.spec = spec
        self.router = LinearScores(dim, num_experts)

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        return route_positive(self.router(x_TD), shape)

    @property
    def flops_per_token(self) -> int:
        return self.router.flops_per_token
