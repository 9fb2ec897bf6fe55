"""ReMoE: a linear router with ReLU in place of top-k and softmax.

Shapes: T tokens, D width, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..routing import Routing, route_positive
from ..spec import Relu
from .base import RouterGate


class ReluGate(RouterGate):
    """``R(x) = relu(x W)`` weighs experts, and is above 0 for the active ones (ReMoE, arXiv 2412.14711, section 3)."""

    spec: Relu

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        return route_positive(self.router(x_TD), shape)
