"""Expert choice: experts choose tokens.

Shapes: T tokens, D width, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..routing import Routing, route_expert_choice
from ..spec import ExpertChoice
from .base import RouterGate


class ExpertChoiceGate(RouterGate):
    """Each expert takes the tokens it is most probable for, a fixed number of each group (arXiv 2202.09368, eq. 1–2).

    That number is ``capacity_factor · (tokens of the group) / E``, rounded, and at least 1. Probabilities are a
    softmax of ``x W`` over the experts, and weigh as they are.
    """

    spec: ExpertChoice

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        scores_TE = self.router(x_TD)
        tokens, num_experts = scores_TE.shape
        groups = shape[0] if self.spec.group == "sequence" and tokens else 1
        size = tokens // groups
        capacity = min(size, max(1, round(self.spec.capacity_factor * size / num_experts)))
        return route_expert_choice(scores_TE, capacity, groups, shape)
