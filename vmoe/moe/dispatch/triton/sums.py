"""Sums in a fixed order, of parts that other kernels left.

Shapes: T tokens, D width, E experts, F hidden width, P rows, B blocks of columns.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_tokens"])
def combine(
    rows_PD, places_ET, y_TD, num_tokens, E: tl.constexpr, D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr
):
    """``y_t = Σ_e rows[place of (e, t)]``, summed in float32 and rounded once; 0 for a token without a row."""
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    column_exists = (column < D)[None, :]
    total = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    places = places_ET + token
    for _ in tl.range(E, loop_unroll_factor=4):
        place = tl.load(places, token < num_tokens, -1).to(tl.int64)
        places += num_tokens
        active = (place >= 0)[:, None] & column_exists
        total += tl.load(rows_PD + place[:, None] * D + column[None, :], active, 0).to(tl.float32)
    y = y_TD + token.to(tl.int64)[:, None] * D + column[None, :]
    tl.store(y, total.to(y_TD.dtype.element_ty), (token < num_tokens)[:, None] & column_exists)


@triton.jit(do_not_specialize=["num_rows"])
def sum_blocks(parts_BP, ends_E, out_P, num_rows, E: tl.constexpr, B: tl.constexpr, BLOCK: tl.constexpr):
    """``out_p = Σ_b parts[b, p]``, and 0 past the last pair, where no tile wrote."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    active = row < tl.load(ends_E + E - 1)
    total = tl.zeros((BLOCK,), tl.float32)
    parts = parts_BP + row
    for _ in range(B):
        total += tl.load(parts, active, 0)
        parts += num_rows
    tl.store(out_P + row, total.to(out_P.dtype.element_ty), row < num_rows)


@triton.jit(do_not_specialize=["num_tiles"])
def sum_tiles(
    f_parts,
    d_parts,
    tiles,
    f_out_EF,
    d_out_ED,
    num_tiles,
    F: tl.constexpr,
    D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Each expert's sum over its tiles of parts (tiles, F) and (tiles, D), or one of them; a program takes columns of
    one.
    """
    block = tl.program_id(0)
    F_BLOCKS: tl.constexpr = 0 if f_parts is None else tl.cdiv(F, BLOCK_N)
    if block < F_BLOCKS:
        if f_parts is not None:
            _sum_tiles(f_parts, tiles, f_out_EF, num_tiles, block, F, BLOCK_T, BLOCK_N)
    else:
        if d_parts is not None:
            _sum_tiles(d_parts, tiles, d_out_ED, num_tiles, block - F_BLOCKS, D, BLOCK_T, BLOCK_N)


@triton.jit
def _sum_tiles(parts, tiles, out, num_tiles, block, N: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr):
    expert = tl.program_id(1)
    column = block * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for start in range(0, num_tiles, BLOCK_T):
        tile = start + tl.arange(0, BLOCK_T)
        own = tl.load(tiles + 3 * tile, tile < num_tiles, -1) == expert
        here = parts + tile.to(tl.int64)[:, None] * N + column[None, :]
        total += tl.load(here, own[:, None] & (column < N)[None, :], 0)
    tl.store(out + expert * N + column, tl.sum(total, 0).to(out.dtype.element_ty), column < N)
