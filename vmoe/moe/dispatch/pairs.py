"""The active pairs of a routing as a list sorted by expert, which is what the fast paths work on.

Shapes: T tokens, E experts, P rows of the list.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from ..routing import Routing


class Pairs(NamedTuple):
    """The active pairs by expert, then by token; all int64.

    tokens_P, experts_P: of each pair; 0 for rows past the last pair, which a list of fixed length may have.
    ends_E: where each expert's pairs end.
    """

    tokens_P: Tensor
    experts_P: Tensor
    ends_E: Tensor

    def of(self, values_TE: Tensor) -> Tensor:
        """(P, …): each pair's entry of values (T, E, …), or of values (T, 1, …) that a token has for all experts."""
        if values_TE.shape[1] == 1:
            return values_TE.squeeze(1).index_select(0, self.tokens_P)
        flat = self.tokens_P * values_TE.shape[1] + self.experts_P
        return values_TE.flatten(0, 1).index_select(0, flat)


def sort_pairs(routing: Routing, capacity: float | None = None) -> Pairs:
    """The list of a routing's pairs.

    Its length is the number of pairs where the gate fixes it. Else it is read from the device, one synchronisation of
    the host; or, with a capacity, that share of all T·E pairs, and more active pairs than that are an error
    (`RuntimeError`; on CUDA a device-side assertion).
    """
    active_ET = routing.active.mT
    ends_E = active_ET.sum(1).cumsum(0)
    if routing.num_pairs is None and capacity is None:
        experts_P, tokens_P = active_ET.nonzero().unbind(1)
        return Pairs(tokens_P, experts_P, ends_E)
    flat = active_ET.flatten()
    if routing.num_pairs is not None:
        length = routing.num_pairs
    else:
        assert capacity is not None
        length = ceil(capacity * flat.numel())
        torch._assert_async(ends_E[-1] <= length, f"more active pairs than moe.capacity {capacity} holds; raise it")
    places = torch.where(flat, flat.cumsum(0) - 1, length)  # inactive pairs go past the end
    listed = flat.new_zeros(length + 1, dtype=torch.int64)
    listed = listed.scatter(0, places.clamp(max=length), torch.arange(flat.numel(), device=flat.device))[:-1]
    listed = torch.where(torch.arange(length, device=flat.device) < ends_E[-1], listed, 0)
    return Pairs(listed % routing.num_tokens, listed // routing.num_tokens, ends_E)
