"""Kernels of the fused path for CPUs: some rows of one expert at a time, in memory that is used again.

A tile of rows goes through the whole expert before the next one starts, and what lies between lives in buffers that all
tiles share. Works on any device and for any type, but reads the groups' ends on the host.

Shapes: T tokens, D width, E experts, F hidden width, I gate inputs, P active pairs, N rows of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..activations import ACTIVATIONS
from .network import Expert, Gradients, Hidden, Inputs, Network

TILE = 2048  # rows at most; more rows of one expert are cut into equal parts. Below 1024, products get slower.


class Tile(NamedTuple):
    """Consecutive rows of one expert, and whether they are its first."""

    expert: int
    rows: slice
    first: bool

    @property
    def size(self) -> int:
        return self.rows.stop - self.rows.start


def tiles(ends_E: Tensor) -> list[Tile]:
    """All rows up to the last end, expert by expert; none for an expert without rows."""
    return [
        Tile(expert, slice(*bounds), bounds[0] == start)
        for expert, (start, end) in enumerate(pairwise([0, *ends_E.tolist()]))
        for bounds in pairwise(cut(start, end))
    ]


def cut(start: int, end: int) -> Iterator[int]:
    """The bounds of the fewest equal parts of at most `TILE`."""
    parts = -(-(end - start) // TILE)
    return (start + (end - start) * part // max(parts, 1) for part in range(parts + 1))


class Buffers:
    """Scratch rows by purpose, whose memory serves tile after tile."""

    def __init__(self, like: Tensor, rows: int):
        self.like = like
        self.rows = rows
        self.held: dict[str, Tensor] = {}

    def take(self, purpose: str, size: int, width: int) -> Tensor:
        """(size, width), of unknown contents; the same memory at each call with this purpose."""
        if purpose not in self.held:
            self.held[purpose] = self.like.new_empty(self.rows, width)
        return self.held[purpose][:size]


class Walk:
    """What forward and backward share: the tiles, and the way of a tile's rows into the hidden layer."""

    def __init__(self, inputs: Inputs, kept: Hidden | None):
        self.inputs = inputs
        self.tiles = tiles(inputs.ends_E)
        self.activation = ACTIVATIONS[inputs.activation]
        self.kept = kept
        self.buffers = Buffers(inputs.x_TD, max((tile.size for tile in self.tiles), default=0))

    def gather(self, rows_TD: Tensor, tile: Tile, purpose: str) -> Tensor:
        """(N, D): the rows of the tile's tokens."""
        out = self.buffers.take(purpose, tile.size, rows_TD.shape[1])
        return torch.index_select(rows_TD, 0, self.inputs.tokens_P[tile.rows], out=out)

    def pre_activations(self, tile: Tile) -> Hidden:
        """Where the tile's rows of `Hidden` are, or are to be; without ``up``, an empty tensor stands for its rows."""
        if self.kept is not None:
            return Hidden(self.kept.gate_PF[tile.rows], self.kept.up_PF[tile.rows])
        width = self.inputs.network.gate_EFI.shape[1]
        up_rows = 0 if self.inputs.network.up_EFD is None else tile.size
        return Hidden(self.buffers.take("gate", tile.size, width), self.buffers.take("up", up_rows, width))

    def gate_inputs(self, tile: Tile, x_ND: Tensor) -> Tensor:
        return x_ND if self.inputs.z_PR is None else self.inputs.z_PR[tile.rows]

    def enter(self, expert: Expert, tile: Tile, x_ND: Tensor, pre: Hidden) -> None:
        """Compute the tile's rows of `Hidden`."""
        linear(self.gate_inputs(tile, x_ND), expert.gate_FI, expert.gate_bias_F, pre.gate_PF)
        if expert.up_FD is not None:
            linear(x_ND, expert.up_FD, None, pre.up_PF)


def linear(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, out_NO: Tensor) -> Tensor:
    if bias_O is None:
        return torch.mm(x_NI, weight_OI.mT, out=out_NO)
    return torch.addmm(bias_O, x_NI, weight_OI.mT, out=out_NO)


def clear_idle(totals: Network, ends_E: Tensor) -> None:
    """Zeros where no tile will start a sum: the weights of experts without rows, and every bias."""
    idle_E = ends_E.diff(prepend=ends_E.new_zeros(1)) == 0
    for total in totals:
        if total is not None:
            total[idle_E if total.dim() == 3 else ...] = 0


def add_outer(total_OI: Tensor, y_NO: Tensor, x_NI: Tensor, tile: Tile) -> None:
    """Add the sum of the rows' outer products; an expert's first tile starts from 0, whatever is there."""
    torch.addmm(total_OI, y_NO.mT, x_NI, beta=0 if tile.first else 1, out=total_OI)


def sum_type(x: Tensor) -> torch.dtype:
    """Of sums over a token's experts: at least float32, rounded once at their end."""
    return torch.promote_types(x.dtype, torch.float32)


def forward(inputs: Inputs, keep: bool) -> tuple[Tensor, Hidden]:
    """(y_TD, what the backward reads); see `vmoe.moe.dispatch.fused`."""
    x_TD, _, weights_P, tokens_P, _, network, _ = inputs
    (dim, width), pairs = network.down_EDF.shape[1:], len(tokens_P) if keep else 0
    hidden = Hidden(x_TD.new_empty(pairs, width), x_TD.new_empty(0 if network.up_EFD is None else pairs, width))
    walk = Walk(inputs, hidden if keep else None)
    y_TD = torch.zeros_like(x_TD, dtype=sum_type(x_TD))
    for tile in walk.tiles:
        expert = network.expert(tile.expert)
        pre = walk.pre_activations(tile)
        walk.enter(expert, tile, walk.gather(x_TD, tile, "x"), pre)
        hidden_NF = walk.activation.forward(pre.gate_PF, walk.buffers.take("hidden", tile.size, width))
        if expert.up_FD is not None:
            hidden_NF.mul_(pre.up_PF)
        y_ND = linear(hidden_NF, expert.down_DF, expert.down_bias_D, walk.buffers.take("y", tile.size, dim))
        y_ND = y_ND.to(y_TD.dtype).mul_(weights_P[tile.rows, None])
        y_TD.index_add_(0, tokens_P[tile.rows], y_ND)
    return y_TD.to(x_TD.dtype), hidden


def backward(grad_TD: Tensor, inputs: Inputs, hidden: Hidden) -> Gradients:
    """The gradients of `forward`; it recomputes the hidden rows where none were kept."""
    x_TD, z_PR, weights_P, tokens_P, ends_E, network, _ = inputs
    dim, width = network.down_EDF.shape[1:]
    kept = len(hidden.gate_PF) == len(tokens_P)
    walk = Walk(inputs, hidden if kept else None)
    take = walk.buffers.take
    grads = Gradients(
        torch.zeros_like(x_TD, dtype=sum_type(x_TD)),
        None if z_PR is None else torch.zeros_like(z_PR),
        torch.zeros_like(weights_P),
        network.map(torch.empty_like),
    )
    clear_idle(grads.network, ends_E)
    for tile in walk.tiles:
        n, expert, grad = tile.size, network.expert(tile.expert), grads.network.expert(tile.expert)
        x_ND, pre = walk.gather(x_TD, tile, "x"), walk.pre_activations(tile)
        if not kept:
            walk.enter(expert, tile, x_ND, pre)
        acted_NF = walk.activation.forward(pre.gate_PF, take("acted", n, width))
        hidden_NF = acted_NF
        if expert.up_FD is not None:
            hidden_NF = torch.mul(acted_NF, pre.up_PF, out=take("hidden", n, width))

        # y = w (hidden Wᵀ + b): w's gradient is <grad W, hidden> + <grad, b>; all others are w times what they were.
        grad_ND = walk.gather(grad_TD, tile, "grad")
        grad_hidden_NF = torch.mm(grad_ND, expert.down_DF, out=take("grad hidden", n, width))
        products_NF = torch.mul(hidden_NF, grad_hidden_NF, out=take("scratch", n, width))
        grad_weights_N = grads.weights_P[tile.rows]
        torch.sum(products_NF, 1, dtype=grad_weights_N.dtype, out=grad_weights_N)
        if expert.down_bias_D is not None:
            grad_weights_N += grad_ND @ expert.down_bias_D
        grad_ND.mul_(weights_P[tile.rows, None])
        grad_hidden_NF.mul_(weights_P[tile.rows, None])

        add_outer(grad.down_DF, grad_ND, hidden_NF, tile)
        if grad.down_bias_D is not None:
            grad.down_bias_D.add_(grad_ND.sum(0))
        grad_x_ND = take("grad x", n, dim).zero_()
        if expert.up_FD is not None:
            assert grad.up_FD is not None
            grad_up_NF = acted_NF.mul_(grad_hidden_NF)
            add_outer(grad.up_FD, grad_up_NF, x_ND, tile)
            torch.mm(grad_up_NF, expert.up_FD, out=grad_x_ND)
            grad_hidden_NF.mul_(pre.up_PF)
        grad_gate_NF = walk.activation.backward(grad_hidden_NF, pre.gate_PF)
        add_outer(grad.gate_FI, grad_gate_NF, walk.gate_inputs(tile, x_ND), tile)
        if grad.gate_bias_F is not None:
            grad.gate_bias_F.add_(grad_gate_NF.sum(0))
        if grads.z_PR is None:
            grad_x_ND.addmm_(grad_gate_NF, expert.gate_FI)
        else:
            torch.mm(grad_gate_NF, expert.gate_FI, out=grads.z_PR[tile.rows])
        grads.x_TD.index_add_(0, tokens_P[tile.rows], grad_x_ND.to(grads.x_TD.dtype))
    return grads._replace(x_TD=grads.x_TD.to(x_TD.dtype))
