"""Balance losses, as pure functions of Routings.

A loss is linear in the tokens but for how many of them each expert serves, which carries no gradient. So these counts
are an argument (`Served`), by default of the routing itself. Where processes have equally many tokens each and give the
counts of all of them, the mean over processes of loss and gradient is that of all tokens together. Without any token a
loss is 0.

Shapes: T tokens, E experts, L layers.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from .routing import Routing


class Served(NamedTuple):
    """What a layer's experts served: pairs_E, int64, of each of them, out of so many tokens, (), int64."""

    pairs_E: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, routing: Routing) -> Served:
        tokens = torch.full((), routing.num_tokens, device=routing.active.device)
        return cls(routing.active.sum(0), tokens)

    def share_of_pairs(self, dtype: torch.dtype) -> Tensor:
        """(E,): of each expert among all active pairs."""
        return self.pairs_E.to(dtype) / self.pairs_E.sum().clamp(min=1)

    def share_of_tokens(self, dtype: torch.dtype) -> Tensor:
        """(E,): of the tokens that each expert serves."""
        return self.pairs_E.to(dtype) / self.tokens.clamp(min=1)


def switch_loss(routing: Routing, served: Served | None = None) -> Tensor:
    """``E · Σ_e f_e P_e`` (Switch, arXiv 2101.03961, eq. 4–6); 1 at perfect balance.

    f_e: share of the assignments that go to e, without gradient. P_e: mean softmax probability of e.
    """
    share_E = (served or Served.of(routing)).share_of_pairs(routing.scores.dtype)
    return routing.num_experts * (share_E * mean_of_tokens(routing.scores.softmax(dim=-1))).sum()


def z_loss(routing: Routing) -> Tensor:
    """``mean_t (logsumexp scores_t)²`` (ST-MoE, arXiv 2202.08906, eq. 5)."""
    return mean_of_tokens(routing.scores.logsumexp(dim=-1).square())


def relu_loss(routing: Routing, k: int, served: Served | None = None) -> Tensor:
    """``E / (k·T²) · Σ_e (Σ_t R_te)(Σ_t [R_te > 0])`` (ReMoE, arXiv 2412.14711, section 3).

    The L1 norm of the gate's weights R, each expert's weighted by its load, which carries no gradient.
    """
    share_E = (served or Served.of(routing)).share_of_tokens(routing.weights.dtype)
    return routing.num_experts / k * (share_E * mean_of_tokens(routing.weights)).sum()


def routing_free_loss(
    routings: Collection[Routing], expert_share: float, served: Collection[Served] | None = None
) -> Tensor:
    """``μ·L_E + (1−μ)·L_T`` over the pairs of all layers at once (Routing-Free, arXiv 2604.00801).

    With M the active pairs and P = relu(score) where active, else 0, both (T, L·E):
    ``L_E = mean_j(mean_t M · mean_t P)`` and ``L_T = mean_t(mean_j M · mean_j P)``. M carries no gradient. Layers
    of different T (hierarchical hosts) are taken in groups of equal T, weighted by their columns.
    """
    columns = sum(routing.num_experts for routing in routings)
    loss = torch.zeros((), device=next(iter(routings)).weights.device)
    served = served or [Served.of(routing) for routing in routings]
    by_tokens = sorted(zip(routings, served, strict=True), key=num_tokens)
    for _, group in groupby(by_tokens, key=num_tokens):
        layers, counts = zip(*group, strict=True)
        weights = torch.cat([routing.weights for routing in layers], dim=1).relu()
        active = torch.cat([routing.active for routing in layers], dim=1).to(weights.dtype)
        share = torch.cat([count.share_of_tokens(weights.dtype) for count in counts])
        expert_balance = (share * mean_of_tokens(weights)).mean()
        token_balance = mean_of_tokens(active.mean(1) * weights.mean(1))
        both = expert_share * expert_balance + (1 - expert_share) * token_balance
        loss = loss + both * active.shape[1] / columns
    return loss


def num_tokens(layer: tuple[Routing, Served]) -> int:
    return layer[0].num_tokens


def mean_of_tokens(values: Tensor) -> Tensor:
    """The mean over the first dimension; 0, with a gradient, where it is empty."""
    return values.sum(0) / max(len(values), 1)
