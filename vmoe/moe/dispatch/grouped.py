"""Dispatch by groups: gather all active pairs' rows, expert by expert, and run each product once over all of them.

Its shapes do not depend on the routing where the gate fixes the number of pairs, so `torch.compile` captures the layer
whole; otherwise that number is read from the device, which breaks the graph once a layer.

Shapes: T tokens, D width, E experts, R rank, P active pairs.
"""

from __future__ import annotations

from torch import Tensor

from ..experts import Experts, StackedLinear
from ..routing import Routing
from .grouped_linear import grouped_linear
from .options import DispatchOptions
from .pairs import sort_pairs
from .recompute import recomputable


@recomputable
def dispatch_grouped(
    x_TD: Tensor, features_TER: Tensor | None, routing: Routing, experts: Experts, options: DispatchOptions
) -> Tensor:
    """What `dispatch_reference` computes."""
    pairs = sort_pairs(routing, options.capacity)

    def linear(layer: StackedLinear, rows: Tensor) -> Tensor:
        return grouped_linear(rows, layer.weight, layer.bias, pairs.ends_E)

    z_PR = None if features_TER is None else pairs.of(features_TER)
    rows_PD = experts.compute(linear, x_TD[pairs.tokens_P], z_PR)
    weighted_PD = rows_PD * pairs.of(routing.weights)[:, None].to(rows_PD.dtype)
    return rows_PD.new_zeros(x_TD.shape).index_add(0, pairs.tokens_P, weighted_PD)
