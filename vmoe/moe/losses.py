"""Balance losses, as pure functions of Routings.

Shapes: T tokens, E experts, L layers.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import groupby

import torch
from torch import Tensor

from .routing import Routing


def switch_loss(routing: Routing) -> Tensor:
    """``E · Σ_e f_e P_e`` (Switch, arXiv 2101.03961, eq. 4–6); 1 at perfect balance.

    f_e: share of the assignments that go to e, without gradient. P_e: mean softmax probability of e.
    """
    pairs_E = routing.active.sum(0).to(routing.scores.dtype)
    share_E = pairs_E / pairs_E.sum()
    probability_E = routing.scores.softmax(dim=-1).mean(0)
    return routing.num_experts * (share_E * probability_E).sum()


def z_loss(routing: Routing) -> Tensor:
    """``mean_t (logsumexp scores_t)²`` (ST-MoE, arXiv 2202.08906, eq. 5)."""
    return routing.scores.logsumexp(dim=-1).square().mean()


def relu_loss(routing: Routing, k: int) -> Tensor:
    """``E / (k·T²) · Σ_e (Σ_t R_te)(Σ_t [R_te > 0])`` (ReMoE, arXiv 2412.14711, section 3).

    The L1 norm of the gate's weights R, each expert's weighted by its load, which carries no gradient.
    """
    share_E = routing.active.to(routing.weights.dtype).mean(0)
    return routing.num_experts / k * (share_E * routing.weights.mean(0)).sum()


def routing_free_loss(routings: Collection[Routing], expert_share: float) -> Tensor:
    """``μ·L_E + (1−μ)·L_T`` over the pairs of all layers at once (Routing-Free, arXiv 2604.00801).

    With M the active pairs and P = relu(score) where active, else 0, both (T, L·E):
    ``L_E = mean_j(mean_t M · mean_t P)`` and ``L_T = mean_t(mean_j M · mean_j P)``. M carries no gradient. Layers
    of different T (hierarchical hosts) are taken in groups of equal T, weighted by their columns.
    """
    columns = sum(routing.num_experts for routing in routings)
    loss = torch.zeros((), device=next(iter(routings)).weights.device)
    for _, group in groupby(sorted(routings, key=num_tokens), key=num_tokens):
        layers = list(group)
        weights = torch.cat([routing.weights for routing in layers], dim=1).relu()
        active = torch.cat([routing.active for routing in layers], dim=1).to(weights.dtype)
        expert_balance = (active.mean(0) * weights.mean(0)).mean()
        token_balance = (active.mean(1) * weights.mean(1)).mean()
        both = expert_share * expert_balance + (1 - expert_share) * token_balance
        loss = loss + both * active.shape[1] / columns
    return loss


def num_tokens(routing: Routing) -> int:
    return routing.num_tokens
