"""Routing: a gate's decision as an immutable value.

Shapes: T tokens, E experts, B sequences, N tokens a sequence, S slots an expert.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Slots:
    """How tokens mix into the rows that experts compute, and back (Soft MoE, arXiv 2308.00951, eq. 1–3).

    dispatch: (B, N, E, S) float32, each slot's weights over the sequence's tokens, which sum to 1.
    combine: (B, N, E, S) float32, each token's weights over all slots, which sum to 1.
    """

    dispatch: Tensor
    combine: Tensor

    @property
    def rows(self) -> int:
        """Rows that the experts compute: one a slot."""
        sequences, _, experts, slots = self.dispatch.shape
        return sequences * experts * slots


@dataclass(frozen=True, eq=False)
class Routing:
    """Which experts each token uses, and with what weight: ``y_t = Σ_e weights[t, e] · expert_e(x_t)``.

    active: (T, E) bool, the pairs that are computed; any number of them in a row, also none.
    weights: (T, E) float32, 0 where inactive; carries the gate's gradient.
    scores: (T, E) float32, what the gate ranked or compared; carries gradient.
    num_pairs: the number of active pairs where the gate fixes it, else None.
    shape: the tokens' shape before they were flattened, batch first, such as (B, N); its product is T.
    slots: of a gate whose experts compute mixtures of tokens, not tokens; then `active` holds everywhere and
    `weights` sums each expert's slots.
    """

    active: Tensor
    weights: Tensor
    scores: Tensor
    num_pairs: int | None
    shape: torch.Size
    slots: Slots | None = None

    @property
    def num_tokens(self) -> int:
        return self.active.shape[0]

    @property
    def num_experts(self) -> int:
        return self.active.shape[1]

    def count_pairs(self) -> Tensor:
        """Number of active pairs, an int64 scalar on the routing's device (no synchronisation)."""
        if self.num_pairs is not None:
            return torch.full((), self.num_pairs, device=self.active.device)
        return self.active.sum()

    def count_rows(self) -> Tensor:
        """Number of rows that experts compute: the active pairs, or the slots. As `count_pairs`."""
        if self.slots is not None:
            return torch.full((), self.slots.rows, device=self.active.device)
        return self.count_pairs()

    def select(self, tokens: Tensor) -> Routing:
        """The decision for some of the tokens alone, each a sequence of its own. tokens: (T,) bool, or int64 numbers.

        Raises `ValueError` for a Routing with slots, which are mixtures of all tokens.
        """
        if self.slots is not None:
            raise ValueError("this Routing has slots, which mix all tokens of a sequence; allowed: one without slots")
        active = self.active[tokens]
        return Routing(active, self.weights[tokens], self.scores[tokens], None, torch.Size([len(active)]))

    def detach(self) -> Routing:
        """The same decision without its gradient graph."""
        slots = self.slots and Slots(self.slots.dispatch.detach(), self.slots.combine.detach())
        return replace(self, weights=self.weights.detach(), scores=self.scores.detach(), slots=slots)


def route_top_k(
    scores_TE: Tensor, k: int, shape: torch.Size, *, weights: str, ranked_TE: Tensor | None = None
) -> Routing:
    """Activate each token's k largest scores.

    weights: ``selected``, a softmax over the k selected scores; ``all``, a softmax over all E, of which the
    selected values are kept as they are; ``equal``, 1/k.
    ranked_TE: what selects in place of the scores, which then only weigh.
    """
    ranked_TE = scores_TE if ranked_TE is None else ranked_TE
    best_TK = ranked_TE.topk(k, dim=-1).indices
    active_TE = torch.zeros_like(scores_TE, dtype=torch.bool).scatter_(1, best_TK, True)
    if weights == "selected":
        weights_TE = scores_TE.masked_fill(~active_TE, -torch.inf).softmax(dim=-1)
    elif weights == "all":
        weights_TE = scores_TE.softmax(dim=-1) * active_TE
    else:
        weights_TE = active_TE.to(scores_TE.dtype) / k
    return Routing(active_TE, weights_TE, scores_TE, len(scores_TE) * k, shape)


def route_threshold(scores_TE: Tensor, threshold: float, shape: torch.Size) -> Routing:
    """Activate every pair whose score is at least the threshold; the score itself is its weight."""
    active_TE = scores_TE >= threshold
    weights_TE = torch.where(active_TE, scores_TE, torch.zeros_like(scores_TE))
    return Routing(active_TE, weights_TE, scores_TE, None, shape)


def route_positive(scores_TE: Tensor, shape: torch.Size) -> Routing:
    """Activate every pair whose score is above 0; the score is its weight, so weights have no jump."""
    return Routing(scores_TE > 0, scores_TE.relu(), scores_TE, None, shape)


def route_expert_choice(scores_TE: Tensor, capacity: int, groups: int, shape: torch.Size) -> Routing:
    """Activate each expert's best tokens, `capacity` of them in each of the equal groups of consecutive tokens.

    An expert ranks tokens, and weighs them, by their softmax over all E experts.
    """
    probability_TE = scores_TE.softmax(dim=-1)
    grouped_GNE = probability_TE.unflatten(0, (groups, -1))
    best_GCE = grouped_GNE.topk(capacity, dim=1).indices
    active_TE = torch.zeros_like(grouped_GNE, dtype=torch.bool).scatter_(1, best_GCE, True).flatten(0, 1)
    num_pairs = groups * capacity * scores_TE.shape[1]
    return Routing(active_TE, probability_TE * active_TE, scores_TE, num_pairs, shape)


def route_slots(logits_BNES: Tensor, shape: torch.Size) -> Routing:
    """Mix each sequence's tokens into slots, and the slots' results back into tokens."""
    slots = Slots(logits_BNES.softmax(dim=1), logits_BNES.flatten(2).softmax(dim=2).view_as(logits_BNES))
    weights_TE = slots.combine.sum(-1).flatten(0, 1)
    scores_TE = logits_BNES.logsumexp(dim=-1).flatten(0, 1)
    active_TE = torch.ones_like(weights_TE, dtype=torch.bool)
    return Routing(active_TE, weights_TE, scores_TE, weights_TE.numel(), shape, slots)
