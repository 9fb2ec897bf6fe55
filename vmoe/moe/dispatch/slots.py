"""Soft MoE's dispatch: experts compute slots, mixtures of a sequence's tokens, and tokens mix the results.

Shapes: B sequences, N tokens a sequence, E experts, S slots an expert, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..experts import Experts
from ..routing import Slots


def dispatch_slots(x_TD: Tensor, slots: Slots, experts: Experts) -> Tensor:
    """``x̃ = Dᵀ x``, ``ỹ_s = expert(x̃_s)``, ``y = C ỹ`` for each sequence (arXiv 2308.00951, eq. 1–3)."""
    sequences, tokens, num_experts, size = slots.dispatch.shape
    x_BND = x_TD.view(sequences, tokens, x_TD.shape[1])
    dispatch_BQN = slots.dispatch.to(x_TD.dtype).flatten(2).mT  # Q: all slots, expert by expert
    rows_EPD = torch.bmm(dispatch_BQN, x_BND).unflatten(1, (num_experts, size)).transpose(0, 1).flatten(1, 2)
    results_EPD = experts.batched(rows_EPD)
    results_BQD = results_EPD.unflatten(1, (sequences, size)).transpose(0, 1).flatten(1, 2)
    return torch.bmm(slots.combine.to(results_BQD.dtype).flatten(2), results_BQD).flatten(0, 1)
