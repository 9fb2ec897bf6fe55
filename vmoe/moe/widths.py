"""Expert widths of equal active compute: the MoE layer spends per token what the host's MLP spends.

With k the number of experts whose compute a token costs (ρ∞·E where it varies; shared experts included), D the width
and H the host's hidden width, the host does 2·D·H multiply-adds a token. The router's own product (D·E, under 1 %) is
not charged to the experts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .spec import ExpertSpec, Glu, LowRankGlu, Mlp

MULTIPLE = 8  # widths are rounded to it: 16 bytes of bfloat16, what fused kernels ask for


class Widths(NamedTuple):
    """hidden: F of one expert. rank: R of a low-rank gate, 0 for other experts."""

    hidden: int
    rank: int


class Budget(NamedTuple):
    """What a token costs, in experts: pairs it is computed in, and experts that compute its features.

    share: of the experts that are active, ρ, which sets the rank.
    """

    pairs: float
    features: float
    share: float


def expert_budget(active: float, *, num_experts: int, shared_experts: int, scores_features: bool) -> Budget:
    """active: routed experts a token costs. scores_features: whether the gate needs the features of all experts."""
    features = num_experts if scores_features else active
    return Budget(active + shared_experts, features + shared_experts, active / num_experts)


def expert_widths(spec: ExpertSpec, *, dim: int, host_hidden: int, budget: Budget) -> Widths:
    """Resolve ``match`` and ``host`` to numbers.

    mlp: k·2DF = 2DH, so F = H/k. glu: k·3DF = 2DH, so F = 2H/(3k). lowrank_glu: with R = ρF and n experts computing
    features, n·D·ρF + k·(2DF + ρF²) = 2DH, a quadratic in F.
    """
    if spec.hidden == "host":
        hidden = host_hidden
    elif spec.hidden != "match":
        hidden = spec.hidden
    elif isinstance(spec, Mlp):
        hidden = round_width(host_hidden / budget.pairs)
    elif isinstance(spec, Glu):
        hidden = round_width(2 * host_hidden / (3 * budget.pairs))
    elif spec.rank == "match":
        square = budget.pairs * budget.share
        linear = dim * (budget.features * budget.share + 2 * budget.pairs)
        hidden = round_width((math.sqrt(linear**2 + 8 * square * dim * host_hidden) - linear) / (2 * square))
    else:
        remaining = 2 * dim * host_hidden - budget.features * dim * spec.rank
        if remaining <= 0:
            raise ValueError(
                f"experts.rank is {spec.rank}; allowed with hidden: match: less than"
                f" {2 * host_hidden / budget.features:.0f} (there, the gate products alone cost as much as the host's"
                " MLP)"
            )
        hidden = round_width(remaining / (budget.pairs * (spec.rank + 2 * dim)))
    if not isinstance(spec, LowRankGlu):
        return Widths(hidden, 0)
    return Widths(hidden, round_width(budget.share * hidden) if spec.rank == "match" else spec.rank)


def round_width(width: float) -> int:
    """The nearest multiple of `MULTIPLE`, at least one of them."""
    return max(MULTIPLE, round(width / MULTIPLE) * MULTIPLE)
