"""Products of every expert's rows with its own weights.

Programs are numbered with the columns' block fastest: those that share a tile of rows run at the same time, and its
rows come from memory once; an expert's weights stay in the L2 cache from tile to tile.

Shapes: T tokens, D width, E experts, F hidden width, I gate inputs (D, or R, the rank of z), P rows, K and N of a
product (P, K) x (K, N).
"""

import triton
import triton.language as tl

from .activations import step
from .plan import rows_of_tile
from .tiles import FEW_COLUMNS, columns_of, halves, multiply, multiply_two, store_tile


@triton.jit
def in_products(
    x_TD,
    z_PI,
    tokens_P,
    gate_EFI,
    gate_bias_EF,
    up_EFD,
    tiles,
    gate_PF,
    up_PF,
    hidden_PF,
    D: tl.constexpr,
    F: tl.constexpr,
    INPUTS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """``gate = gate(z or x) + b``, ``up = up(x)`` and ``hidden = act(gate) ⊙ up``, each where it is asked for."""
    tile = tl.program_id(0) // tl.cdiv(F, BLOCK_N)
    block = tl.program_id(0) % tl.cdiv(F, BLOCK_N)
    expert = tl.load(tiles + 3 * tile).to(tl.int64)
    if expert < 0:
        return
    row, row_exists = rows_of_tile(tiles, tile, BLOCK_M)
    column, _ = columns_of(block, F, BLOCK_N)
    x_rows = x_TD + tl.load(tokens_P + row) * D
    gate_rows = x_rows if z_PI is None else z_PI + row * INPUTS
    gate_columns = gate_EFI + expert * F * INPUTS + column * INPUTS

    gate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if up_EFD is None:
        gate = multiply(gate, gate_rows, gate_columns, INPUTS, 1, BLOCK_I, PRECISION)
    else:
        up_columns = up_EFD + expert * F * D + column * D
        if z_PI is None:
            gate, up = multiply_two(gate, up, x_rows, gate_columns, up_columns, D, BLOCK_K, PRECISION)
        else:
            gate = multiply(gate, gate_rows, gate_columns, INPUTS, 1, BLOCK_I, PRECISION)
            up = multiply(up, x_rows, up_columns, D, 1, BLOCK_K, PRECISION)
    bias_F = gate_bias_EF
    if gate_bias_EF is not None:
        bias_F += expert * F
    HAS_UP: tl.constexpr = up_EFD is not None
    first_column = block * BLOCK_N
    _activate(gate, up, row, row_exists, first_column, bias_F, gate_PF, up_PF, hidden_PF, F, HAS_UP, ACTIVATION)


@triton.jit
def _activate(
    gate,
    up,
    row,
    row_exists,
    first_column,
    bias_F,
    gate_PF,
    up_PF,
    hidden_PF,
    F: tl.constexpr,
    HAS_UP: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """What `in_products` does after its products, a few columns at a time, for want of registers."""
    WIDTH: tl.constexpr = gate.shape[1]
    if WIDTH > FEW_COLUMNS:
        gate_left, gate_right = halves(gate)
        up_left, up_right = halves(up)
        column = first_column
        _activate(gate_left, up_left, row, row_exists, column, bias_F, gate_PF, up_PF, hidden_PF, F, HAS_UP, ACTIVATION)
        column += WIDTH // 2
        _activate(
            gate_right, up_right, row, row_exists, column, bias_F, gate_PF, up_PF, hidden_PF, F, HAS_UP, ACTIVATION
        )
    else:
        column = first_column + tl.arange(0, WIDTH)
        exists = row_exists[:, None] & (column < F)[None, :]
        if bias_F is not None:
            gate += tl.load(bias_F + column, column < F, 0).to(tl.float32)[None, :]
        if gate_PF is not None:
            store_tile(gate_PF, gate, row, column, F, exists)
        if up_PF is not None:
            store_tile(up_PF, up, row, column, F, exists)
        if hidden_PF is not None:
            value, _ = step(gate, ACTIVATION)
            hidden = gate * value
            if HAS_UP:
                hidden *= up
            store_tile(hidden_PF, hidden, row, column, F, exists)


@triton.jit
def out_products(
    a_PK,
    a_weight,
    b_PK,
    b_weight,
    bias_EN,
    weights_P,
    tiles,
    out_PN,
    K: tl.constexpr,
    N: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``out = w · (A W + B W' + b)`` with as much of it as is given; W is (E, K, N), or (E, N, K) if TRANSPOSED."""
    tile = tl.program_id(0) // tl.cdiv(N, BLOCK_N)
    expert = tl.load(tiles + 3 * tile).to(tl.int64)
    if expert < 0:
        return
    row, row_exists = rows_of_tile(tiles, tile, BLOCK_M)
    column, column_exists = columns_of(tl.program_id(0) % tl.cdiv(N, BLOCK_N), N, BLOCK_N)
    STRIDE: tl.constexpr = 1 if TRANSPOSED else N
    places = expert * K * N + column * (K if TRANSPOSED else 1)

    out = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    out = multiply(out, a_PK + row * K, a_weight + places, K, STRIDE, BLOCK_K, PRECISION)
    if b_PK is not None:
        out = multiply(out, b_PK + row * K, b_weight + places, K, STRIDE, BLOCK_K, PRECISION)
    if bias_EN is not None:
        out += tl.load(bias_EN + expert * N + column).to(tl.float32)[None, :]
    if weights_P is not None:
        out *= tl.load(weights_P + row).to(tl.float32)[:, None]
    store_tile(out_PN, out, row, column, N, row_exists[:, None] & column_exists[None, :])
