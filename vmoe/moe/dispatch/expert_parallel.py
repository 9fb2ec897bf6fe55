"""Dispatch over processes: each holds some of a layer's experts, and rows go to where their expert is and come back.

A process sorts its active pairs by expert, sends each row to the process that holds the expert, and gets rows of all
processes for its own experts. Those it computes by one of the paths for one process, as a routing in which a row has
one active expert, of weight 1. The results return by the same way; weighting and summing them is done at home, where
the weights and their gradient are. Backward, the gradients of rows take the same ways.

The number of rows for each process is read on the host. All processes of the group run the layer equally often, if
without any token.

Shapes: T tokens, D width, E experts, R rank, P active pairs of this process, S rows that it is sent, H experts here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.distributed import ProcessGroup

from ..experts import Experts
from ..routing import Routing
from .grouped_linear import autocast_type
from .options import DispatchOptions
from .pairs import sort_pairs
from .recompute import Path


@dataclass(frozen=True)
class ExpertPlace:
    """Which experts of every layer this process holds: of equal parts, the one of its rank among `group`.

    Copies of a model share it.
    """

    group: ProcessGroup

    @property
    def parts(self) -> int:
        return torch.distributed.get_world_size(self.group)

    @property
    def part(self) -> int:
        return torch.distributed.get_rank(self.group)

    def __deepcopy__(self, memo: dict[int, Any]) -> ExpertPlace:
        return self


def dispatch_expert_parallel(
    x_TD: Tensor,
    features_TER: Tensor | None,
    routing: Routing,
    experts: Experts,
    options: DispatchOptions,
    *,
    path: Path,
    place: ExpertPlace,
) -> Tensor:
    """What `dispatch_reference` computes of all experts. path: computes rows of the experts that are here.

    `options.capacity` makes no room: the number of pairs is read anyway.
    """
    pairs = sort_pairs(routing)
    dtype = autocast_type(x_TD)  # the products' own, so nothing is lost on the way
    rows_PD = x_TD.to(dtype)[pairs.tokens_P]
    widths = [rows_PD.shape[1]]
    if features_TER is not None:
        z_PR = pairs.of(features_TER.to(dtype))
        widths.append(z_PR.shape[1])
        rows_PD = torch.cat([rows_PD, z_PR], dim=1)

    rows_E = pairs.ends_E.diff(prepend=pairs.ends_E.new_zeros(1))
    trip = Trip.plan(rows_E, place)
    x_SD, *z_SR = trip.out(rows_PD).split(widths, dim=1)
    # every row is of one expert, so one feature vector is given for all of them
    z_S1R = z_SR[0][:, None] if z_SR else None
    y_SD = path(x_SD, z_S1R, trip.routing_of_rows(x_SD), experts, options)
    y_PD = trip.back(y_SD)

    summed = torch.promote_types(y_PD.dtype, torch.float32)
    weighted_PD = y_PD.to(summed) * pairs.of(routing.weights)[:, None]
    y_TD = weighted_PD.new_zeros(len(x_TD), y_PD.shape[1]).index_add(0, pairs.tokens_P, weighted_PD)
    return y_TD.to(y_PD.dtype)


@dataclass(frozen=True)
class Trip:
    """The way of rows to their experts. sent, received: rows to and from each process of the group.

    experts_S: of each row received, the number of its expert among those that are here, of which there are `held`.
    """

    group: ProcessGroup
    sent: list[int]
    received: list[int]
    experts_S: Tensor
    held: int

    @classmethod
    def plan(cls, rows_E: Tensor, place: ExpertPlace) -> Trip:
        """rows_E: how many rows this process has for each expert."""
        for_parts = rows_E.view(place.parts, -1)
        from_parts = torch.empty_like(for_parts)  # of each process, rows for each expert here
        torch.distributed.all_to_all_single(from_parts, for_parts.contiguous(), group=place.group)
        sent, received = torch.stack([for_parts.sum(1), from_parts.sum(1)]).tolist()
        held = for_parts.shape[1]
        experts_S = torch.arange(held, device=rows_E.device).repeat(place.parts)
        experts_S = experts_S.repeat_interleave(from_parts.flatten(), output_size=sum(received))
        return cls(place.group, sent, received, experts_S, held)

    def out(self, rows_PD: Tensor) -> Tensor:
        """(S, D): the rows for the experts here, process by process."""
        moved: Tensor = _Exchange.apply(rows_PD, self.sent, self.received, self.group)
        return moved

    def back(self, rows_SD: Tensor) -> Tensor:
        """(P, D): the rows of this process, in the order that they left in."""
        moved: Tensor = _Exchange.apply(rows_SD, self.received, self.sent, self.group)
        return moved

    def routing_of_rows(self, x_SD: Tensor) -> Routing:
        """Each row's one expert, among those that are here."""
        active_SH = torch.zeros(len(x_SD), self.held, dtype=torch.bool, device=x_SD.device)
        active_SH.scatter_(1, self.experts_S[:, None], True)
        weights_SH = active_SH.to(torch.promote_types(x_SD.dtype, torch.float32))
        return Routing(active_SH, weights_SH, weights_SH, len(x_SD), torch.Size([len(x_SD)]))


class _Exchange(torch.autograd.Function):
    """Rows to the processes of a group, so many to each, for so many from each; their gradients go back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: ProcessGroup) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        moved = rows.new_empty(sum(received), *rows.shape[1:])
        torch.distributed.all_to_all_single(moved, rows.contiguous(), received, sent, group=group)
        return moved

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Exchange.apply(grad, ctx.received, ctx.sent, ctx.group), None, None, None
