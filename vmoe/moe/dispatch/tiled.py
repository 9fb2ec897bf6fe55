"""Kernels of the fused path for CPUs: a few hundred rows of one expert at a time, so that they stay in the caches.

A tile goes through the whole expert before the next one starts. Its intermediate results live in buffers that all
tiles share, because on a CPU fresh memory costs as much as the arithmetic of a narrow layer. They work on any device and
type, but read the groups' ends on the host.

Shapes: T tokens, D width, E experts, F hidden width, I gate inputs, P active pairs, N rows of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..activations import ACTIVATIONS
from .network import Gradients, Hidden, Network, hidden_rows

TILE = 1024  # rows; a multiple of it in one group is cut into equal parts


class Tile(NamedTuple):
    """Consecutive rows of one expert."""

    expert: int
    rows: slice

    @property
    def size(self) -> int:
        return self.rows.stop - self.rows.start


def tiles(ends_E: Tensor) -> Iterator[Tile]:
    """All rows up to the last end, expert by expert; none for an expert without rows."""
    start = 0
    for expert, end in enumerate(ends_E.tolist()):
        count = -(-(end - start) // TILE)
        bounds = [start + (end - start) * part // count for part in range(count)] + [end] if count else []
        for first, last in pairwise(bounds):
            yield Tile(expert, slice(first, last))
        start = end


class Buffers:
    """Scratch rows by purpose, of one size for all tiles."""

    def __init__(self, like: Tensor, ends_E: Tensor):
        self.like = like
        self.largest = max((tile.size for tile in tiles(ends_E)), default=0)
        self.held: dict[str, Tensor] = {}

    def rows(self, purpose: str, size: int, width: int) -> Tensor:
        """(size, width), of unknown contents; the same memory at each call with this purpose."""
        if purpose not in self.held:
            self.held[purpose] = self.like.new_empty(self.largest, width)
        return self.held[purpose][:size]


def linear(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, out_NO: Tensor) -> Tensor:
    if bias_O is None:
        return torch.mm(x_NI, weight_OI.mT, out=out_NO)
    return torch.addmm(bias_O, x_NI, weight_OI.mT, out=out_NO)


def hidden_inputs(
    network: Network, tile: Tile, x_ND: Tensor, z_PR: Tensor | None, gate_NF: Tensor, up_NF: Tensor | None
) -> None:
    """Compute what the activation and the product with ``up`` read, into rows that are given."""
    e = tile.expert
    bias_F = None if network.gate_bias_EF is None else network.gate_bias_EF[e]
    linear(x_ND if z_PR is None else z_PR[tile.rows], network.gate_EFI[e], bias_F, gate_NF)
    if network.up_EFD is not None:
        assert up_NF is not None
        linear(x_ND, network.up_EFD[e], None, up_NF)


def sum_type(x: Tensor) -> torch.dtype:
    """Of sums over a token's experts: at least float32, rounded once at their end."""
    return torch.promote_types(x.dtype, torch.float32)


def forward(
    x_TD: Tensor,
    z_PR: Tensor | None,
    weights_P: Tensor,
    tokens_P: Tensor,
    ends_E: Tensor,
    network: Network,
    activation: str,
    keep: bool,
) -> tuple[Tensor, Hidden]:
    width, hidden = x_TD.shape[1], network.gate_EFI.shape[1]
    rows = len(tokens_P) if keep else 0
    gate_PF = x_TD.new_empty(rows, hidden)
    up_PF = x_TD.new_empty(rows if network.up_EFD is not None else 0, hidden)
    y_TD = torch.zeros_like(x_TD, dtype=sum_type(x_TD))
    buffers = Buffers(x_TD, ends_E)
    for tile in tiles(ends_E):
        e, n = tile.expert, tile.size
        tokens_N = tokens_P[tile.rows]
        x_ND = torch.index_select(x_TD, 0, tokens_N, out=buffers.rows("x", n, width))
        gate_NF = gate_PF[tile.rows] if keep else buffers.rows("gate", n, hidden)
        up_NF = None
        if network.up_EFD is not None:
            up_NF = up_PF[tile.rows] if keep else buffers.rows("up", n, hidden)
        hidden_inputs(network, tile, x_ND, z_PR, gate_NF, up_NF)
        hidden_NF = hidden_rows(activation, gate_NF, up_NF, buffers.rows("hidden", n, hidden))
        bias_D = None if network.down_bias_ED is None else network.down_bias_ED[e]
        y_ND = linear(hidden_NF, network.down_EDF[e], bias_D, buffers.rows("y", n, width))
        y_ND = y_ND.to(y_TD.dtype).mul_(weights_P[tile.rows, None])
        y_TD.index_add_(0, tokens_N, y_ND)
    return y_TD.to(x_TD.dtype), Hidden(gate_PF, up_PF)


def backward(
    grad_TD: Tensor,
    x_TD: Tensor,
    z_PR: Tensor | None,
    weights_P: Tensor,
    tokens_P: Tensor,
    ends_E: Tensor,
    network: Network,
    hidden: Hidden,
    activation: str,
) -> Gradients:
    width, inner = x_TD.shape[1], network.gate_EFI.shape[1]
    kept = len(hidden.gate_PF) == len(tokens_P)
    known = ACTIVATIONS[activation]
    grad_x = torch.zeros_like(x_TD, dtype=sum_type(x_TD))
    grad_z = None if z_PR is None else torch.zeros_like(z_PR)
    grad_weights = torch.zeros_like(weights_P)
    grads = Network(*(None if weight is None else torch.zeros_like(weight) for weight in network))
    buffers = Buffers(x_TD, ends_E)
    for tile in tiles(ends_E):
        e, n = tile.expert, tile.size
        tokens_N, weights_N1 = tokens_P[tile.rows], weights_P[tile.rows, None]
        x_ND = torch.index_select(x_TD, 0, tokens_N, out=buffers.rows("x", n, width))
        gate_NF = hidden.gate_PF[tile.rows] if kept else buffers.rows("gate", n, inner)
        up_NF = None
        if network.up_EFD is not None:
            up_NF = hidden.up_PF[tile.rows] if kept else buffers.rows("up", n, inner)
        if not kept:
            hidden_inputs(network, tile, x_ND, z_PR, gate_NF, up_NF)
        hidden_NF = hidden_rows(activation, gate_NF, up_NF, buffers.rows("hidden", n, inner))

        # y = w · (hidden W + b): what reaches hidden without w gives w's own gradient, <grad, hidden W + b>.
        grad_ND = torch.index_select(grad_TD, 0, tokens_N, out=buffers.rows("grad", n, width))
        grad_hidden_NF = torch.mm(grad_ND, network.down_EDF[e], out=buffers.rows("grad hidden", n, inner))
        scratch_NF = torch.mul(hidden_NF, grad_hidden_NF, out=buffers.rows("scratch", n, inner))
        torch.sum(scratch_NF, 1, dtype=grad_weights.dtype, out=grad_weights[tile.rows])
        if network.down_bias_ED is not None:
            grad_weights[tile.rows] += grad_ND @ network.down_bias_ED[e]
        grad_ND.mul_(weights_N1)
        grad_hidden_NF.mul_(weights_N1)
        grads.down_EDF[e].addmm_(grad_ND.mT, hidden_NF)
        if grads.down_bias_ED is not None:
            grads.down_bias_ED[e] += grad_ND.sum(0)

        grad_x_ND = buffers.rows("grad x", n, width)
        grad_gate_NF = grad_hidden_NF
        beta = 0
        if network.up_EFD is not None:
            assert up_NF is not None and grads.up_EFD is not None
            grad_up_NF = known.forward(gate_NF, scratch_NF).mul_(grad_hidden_NF)
            grad_gate_NF = grad_hidden_NF.mul_(up_NF)
            grads.up_EFD[e].addmm_(grad_up_NF.mT, x_ND)
            torch.mm(grad_up_NF, network.up_EFD[e], out=grad_x_ND)
            beta = 1
        known.backward(grad_gate_NF, gate_NF)
        grads.gate_EFI[e].addmm_(grad_gate_NF.mT, x_ND if z_PR is None else z_PR[tile.rows])
        if grads.gate_bias_EF is not None:
            grads.gate_bias_EF[e] += grad_gate_NF.sum(0)
        if grad_z is None:
            torch.addmm(grad_x_ND, grad_gate_NF, network.gate_EFI[e], beta=beta, out=grad_x_ND)
        else:
            torch.mm(grad_gate_NF, network.gate_EFI[e], out=grad_z[tile.rows])
        grad_x.index_add_(0, tokens_N, grad_x_ND.to(grad_x.dtype))
    return Gradients(grad_x.to(x_TD.dtype), grad_z, grad_weights, grads)
