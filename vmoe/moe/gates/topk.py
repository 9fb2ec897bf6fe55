"""The learned Top-K router, and its control with a router that never learns.

Shapes: T tokens, D width, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..routing import Routing, route_top_k
from ..spec import Random, TopK
from .base import RouterGate, at_least_float32, softmax_over


class LinearGate(RouterGate):
    """The k largest of ``x W``, weighed by a softmax."""

    spec: TopK | Random

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        return route_top_k(self.router(x_TD), self.spec.k, shape, weights=softmax_over(self.spec))


class TopKGate(LinearGate):
    """Learned router: W is trained (arXiv 1701.06538, eq. 3–5, without noise).

    With a bias controller (`vmoe.moe.balance.BiasBalance`), experts are ranked by softmax probability plus
    ``bias_rate · bias_steps`` and weighed without it (arXiv 2408.15664, eq. 3). The steps are whole numbers, so that
    a moving average of the model's weights copies them.
    """

    spec: TopK
    bias_steps: Tensor | None

    def __init__(self, dim: int, num_experts: int, spec: TopK):
        super().__init__(dim, num_experts, spec)
        controlled = spec.bias_rate > 0
        self.register_buffer("bias_steps", torch.zeros(num_experts, dtype=torch.int64) if controlled else None)

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        if self.spec.jitter and self.training:
            x_TD = at_least_float32(x_TD)  # bfloat16 has four numbers within 1 ± 0.01
            x_TD = x_TD * torch.empty_like(x_TD).uniform_(1 - self.spec.jitter, 1 + self.spec.jitter)
        scores_TE = self.router(x_TD)
        ranked_TE = None
        if self.bias_steps is not None:
            ranked_TE = scores_TE.detach().softmax(dim=-1) + self.spec.bias_rate * self.bias_steps
        return route_top_k(scores_TE, self.spec.k, shape, weights=softmax_over(self.spec), ranked_TE=ranked_TE)


class FixedRandomGate(LinearGate):
    """A router that never learns: W ~ N(0, 0.02) is frozen, and kept in the checkpoint."""

    spec: Random

    def __init__(self, dim: int, num_experts: int, spec: Random):
        super().__init__(dim, num_experts, spec)
        self.router.requires_grad_(False)
