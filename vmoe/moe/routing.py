"""Routing: a gate's decision as an immutable value.

Shapes: T tokens, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Routing:
    """Which experts each token uses, and with what weight: ``y_t = Σ_e weights[t, e] · expert_e(x_t)``.

    active: (T, E) bool, the pairs that are computed; any number of them in a row, also none.
    weights: (T, E) float32, 0 where inactive; carries the gate's gradient.
    scores: (T, E) float32, what the gate ranked or compared; carries gradient.
    k: experts a token where the gate fixes the number, else None.
    shape: the tokens' shape before they were flattened, batch first, such as (B, N); its product is T.
    """

    active: Tensor
    weights: Tensor
    scores: Tensor
    k: int | None
    shape: torch.Size

    @property
    def num_tokens(self) -> int:
        return self.active.shape[0]

    @property
    def num_experts(self) -> int:
        return self.active.shape[1]

    def count_pairs(self) -> Tensor:
        """Number of active pairs, an int64 scalar on the routing's device (no synchronisation)."""
        if self.k is not None:
            return torch.full((), self.num_tokens * self.k, device=self.active.device)
        return self.active.sum()

    def detach(self) -> Routing:
        """The same decision without its gradient graph."""
        return Routing(self.active, self.weights.detach(), self.scores.detach(), self.k, self.shape)


def route_top_k(scores_TE: Tensor, k: int, shape: torch.Size, *, weights: str) -> Routing:
    """Activate each token's k largest scores.

    weights: ``selected``, a softmax over the k selected scores; ``all``, a softmax over all E, of which the
    selected values are kept as they are; ``equal``, 1/k.
    """
    best_TK = scores_TE.topk(k, dim=-1).indices
    active_TE = torch.zeros_like(scores_TE, dtype=torch.bool).scatter_(1, best_TK, True)
    if weights == "selected":
        weights_TE = scores_TE.masked_fill(~active_TE, -torch.inf).softmax(dim=-1)
    elif weights == "all":
        weights_TE = scores_TE.softmax(dim=-1) * active_TE
    else:
        weights_TE = active_TE.to(scores_TE.dtype) / k
    return Routing(active_TE, weights_TE, scores_TE, k, shape)


def route_threshold(scores_TE: Tensor, threshold: float, shape: torch.Size) -> Routing:
    """Activate every pair whose score is at least the threshold; the score itself is its weight."""
    active_TE = scores_TE >= threshold
    weights_TE = torch.where(active_TE, scores_TE, torch.zeros_like(scores_TE))
    return Routing(active_TE, weights_TE, scores_TE, None, shape)
