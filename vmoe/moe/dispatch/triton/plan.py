"""Which rows a program works on, and which rows belong to a token: both found on the device.

A tile is up to BLOCK_M consecutive rows of one expert. P rows of E experts fill at most ``P / BLOCK_M + E`` tiles, so
that many programs are started; those left over find that their tile is surplus and return.

Shapes: P rows of the list of pairs, T tokens, E experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

PLAN_BLOCK = 256


class Plan(NamedTuple):
    """tiles: (tiles, 3), the expert of each, its first row and the row after its last; expert −1 for a surplus tile.
    places_ET: the row of each pair of an expert and a token; −1 for an inactive pair. All int32.
    """

    tiles: Tensor
    places_ET: Tensor
    block_m: int


def make_plan(tokens_P: Tensor, ends_E: Tensor, num_tokens: int, block_m: int) -> Plan:
    rows, experts = len(tokens_P), len(ends_E)
    tiles = ends_E.new_empty(rows // block_m + experts, 3, dtype=torch.int32)
    places_ET = ends_E.new_full((experts, num_tokens), -1, dtype=torch.int32)
    grid = (triton.cdiv(max(rows, len(tiles)), PLAN_BLOCK),)
    _plan[grid](
        tokens_P,
        ends_E,
        tiles,
        places_ET,
        num_tokens,
        len(tiles),
        E=experts,
        BLOCK_M=block_m,
        BLOCK=PLAN_BLOCK,
        enable_fp_fusion=True,
    )
    return Plan(tiles, places_ET, block_m)


@triton.jit(do_not_specialize=["num_tokens", "num_tiles"])
def _plan(
    tokens_P,
    ends_E,
    tiles,
    places_ET,
    num_tokens,
    num_tiles,
    E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program looks at BLOCK tiles and at as many rows, by the same numbers."""
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row_expert = tl.zeros((BLOCK,), tl.int64)
    tile_expert = tl.full((BLOCK,), -1, tl.int32)
    tile_first = tl.zeros((BLOCK,), tl.int32)
    tile_last = tl.zeros((BLOCK,), tl.int32)
    start = 0
    tiles_before = 0
    for e in range(E):
        end = tl.load(ends_E + e).to(tl.int32)
        tiles_now = tiles_before + tl.cdiv(end - start, BLOCK_M)
        own = (number >= tiles_before) & (number < tiles_now)
        first = start + (number - tiles_before) * BLOCK_M
        tile_expert = tl.where(own, e, tile_expert)
        tile_first = tl.where(own, first, tile_first)
        tile_last = tl.where(own, tl.minimum(first + BLOCK_M, end), tile_last)
        row_expert += number >= end
        start = end
        tiles_before = tiles_now
    exists = number < num_tiles
    tl.store(tiles + 3 * number, tile_expert, exists)
    tl.store(tiles + 3 * number + 1, tile_first, exists)
    tl.store(tiles + 3 * number + 2, tile_last, exists)
    listed = number < start
    token = tl.load(tokens_P + number, listed, 0)
    tl.store(places_ET + row_expert * num_tokens + token, number, listed)


@triton.jit
def rows_of_tile(tiles, tile, BLOCK_M: tl.constexpr):
    """A tile's rows (BLOCK_M) and which of them exist. For those that do not, its last row stands: what is read there
    was written, so that loads need no mask; only stores do.
    """
    first = tl.load(tiles + 3 * tile + 1)
    last = tl.load(tiles + 3 * tile + 2)
    row = first + tl.arange(0, BLOCK_M)
    return tl.minimum(row, last - 1).to(tl.int64), row < last
