"""Dispatch by groups: gather all active pairs' rows, expert by expert, and run each product once over all of them.

Its shapes do not depend on the routing where the gate fixes the number of pairs, so `torch.compile` captures the layer
whole; otherwise that number is read from the device, which breaks the graph once a layer.

Shapes: T tokens, D width, E experts, R rank, P active pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..experts import Experts, StackedLinear
from ..routing import Routing
from .grouped_linear import grouped_linear


class Pairs(NamedTuple):
    """The active pairs, sorted by expert.

    tokens, experts: (P,), of each pair; ends: (E,), where each expert's pairs end.
    """

    tokens: Tensor
    experts: Tensor
    ends: Tensor


def sort_pairs(routing: Routing) -> Pairs:
    """The active pairs by expert, then by token."""
    active_ET = routing.active.mT
    ends_E = active_ET.sum(1).cumsum(0)
    if routing.num_pairs is None:
        experts_P, tokens_P = active_ET.nonzero().unbind(1)
        return Pairs(tokens_P, experts_P, ends_E)
    flat = active_ET.flatten()
    positions = torch.where(flat, flat.cumsum(0) - 1, routing.num_pairs)  # inactive pairs go past the end
    sorted_P = flat.new_zeros(routing.num_pairs + 1, dtype=torch.int64)
    sorted_P = sorted_P.scatter(0, positions, torch.arange(flat.numel(), device=flat.device))[:-1]
    return Pairs(sorted_P % routing.num_tokens, sorted_P // routing.num_tokens, ends_E)


def dispatch_grouped(x_TD: Tensor, features_TER: Tensor | None, routing: Routing, experts: Experts) -> Tensor:
    """What `dispatch_reference` computes."""
    tokens_P, experts_P, ends_E = sort_pairs(routing)

    def linear(layer: StackedLinear, rows: Tensor) -> Tensor:
        return grouped_linear(rows, layer.weight, layer.bias, ends_E)

    z_PR = None if features_TER is None else features_TER[tokens_P, experts_P]
    rows_PD = experts.compute(linear, x_TD[tokens_P], z_PR)
    weighted_PD = rows_PD * routing.weights[tokens_P, experts_P, None].to(rows_PD.dtype)
    return rows_PD.new_zeros(x_TD.shape).index_add(0, tokens_P, weighted_PD)
