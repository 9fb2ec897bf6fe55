"""Expert widths of equal active compute: the MoE layer spends per token what the host's MLP spends.

With k the number of experts a token uses (ρ∞·E where it varies), D the width and H the host's hidden width, the
host does 2·D·H multiply-adds a token. The router's own product (D·E, under 1 %) is not charged to the experts.
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


def expert_widths(spec: ExpertSpec, *, dim: int, host_hidden: int, active: float, num_experts: int) -> Widths:
    """Resolve ``match`` and ``host`` to numbers.

    mlp: k·2DF = 2DH, so F = H/k. glu: k·3DF = 2DH, so F = 2H/(3k). lowrank_glu: with R = ρF and ρ = k/E, the
    features of all experts cost E·D·R = k·D·F, so k·(3DF + ρF²) = 2DH, a quadratic in F.
    """
    share = active / num_experts
    if spec.hidden == "host":
        hidden = host_hidden
    elif spec.hidden != "match":
        hidden = spec.hidden
    elif isinstance(spec, Mlp):
        hidden = round_width(host_hidden / active)
    elif isinstance(spec, Glu):
        hidden = round_width(2 * host_hidden / (3 * active))
    elif spec.rank == "match":
        target = 2 * dim * host_hidden / active
        hidden = round_width((math.sqrt((3 * dim) ** 2 + 4 * share * target) - 3 * dim) / (2 * share))
    else:
        spent_on_features = num_experts * dim * spec.rank
        remaining = 2 * dim * host_hidden - spent_on_features
        if remaining <= 0:
            raise ValueError(
                f"experts.rank is {spec.rank}; allowed with hidden: match: less than {2 * host_hidden // num_experts}"
                f" (there, the gate products of {num_experts} experts alone cost as much as the host's MLP)"
            )
        hidden = round_width(remaining / (active * (spec.rank + 2 * dim)))
    if not isinstance(spec, LowRankGlu):
        return Widths(hidden, 0)
    return Widths(hidden, round_width(share * hidden) if spec.rank == "match" else spec.rank)


def round_width(width: float) -> int:
    """The nearest multiple of `MULTIPLE`, at least one of them."""
    return max(MULTIPLE, round(width / MULTIPLE) * MULTIPLE)
