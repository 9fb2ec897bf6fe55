"""What a backward pass has beyond products of rows with weights: the hidden rows' gradients and the weights'.

Shapes: T tokens, D width, E experts, F hidden width, I gate inputs (D, or R, the rank of z), P rows, B blocks of F.
"""

import triton
import triton.language as tl

from .activations import step
from .plan import rows_of_tile
from .tiles import FEW_COLUMNS, columns_of, halves, multiply, store_tile


@triton.jit(do_not_specialize=["num_rows"])
def hidden_gradients(
    grad_TD,
    weights_P,
    tokens_P,
    down_EDF,
    down_bias_ED,
    gate_PF,
    up_PF,
    tiles,
    grad_gate_PF,
    grad_up_PF,
    hidden_PF,
    weight_parts_BP,
    gate_bias_parts,
    down_bias_parts,
    num_rows,
    D: tl.constexpr,
    F: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """From ``∂L/∂y`` to the gradients by gate and up, and ``w · hidden``, which the gradient by down reads.

    The gradient by a pair's weight is ``<∂L/∂y, hidden W + b> = <Wᵀ ∂L/∂y, hidden> + <∂L/∂y, b>``: each block of F
    leaves its part of the first product, the block 0 adds the second. A tile also leaves its parts of the biases'
    gradients: (tiles, F) and (tiles, D).
    """
    block = tl.program_id(0) % tl.cdiv(F, BLOCK_N)
    tile = tl.program_id(0) // tl.cdiv(F, BLOCK_N)
    expert = tl.load(tiles + 3 * tile).to(tl.int64)
    if expert < 0:
        return
    row, row_exists = rows_of_tile(tiles, tile, BLOCK_M)
    column, _ = columns_of(block, F, BLOCK_N)
    grad_rows = grad_TD + tl.load(tokens_P + row) * D
    weight = tl.load(weights_P + row).to(tl.float32)

    grad = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    grad = multiply(grad, grad_rows, down_EDF + expert * D * F + column, D, F, BLOCK_K, PRECISION)
    gate_bias_part = gate_bias_parts
    if gate_bias_parts is not None:
        gate_bias_part += tile.to(tl.int64) * F
    weight_part = _through_activation(
        grad, weight, row, row_exists, block * BLOCK_N,
        gate_PF, up_PF, grad_gate_PF, grad_up_PF, hidden_PF, gate_bias_part, F, ACTIVATION,
    )  # fmt: skip
    if down_bias_ED is not None:  # noqa: SIM102 — known when compiling, unlike the block
        if block == 0:
            row_weight = tl.where(row_exists, weight, 0)
            for start in range(0, D, BLOCK_K):
                d = start + tl.arange(0, BLOCK_K)
                bias = tl.load(down_bias_ED + expert * D + d, d < D, 0).to(tl.float32)
                grad_y = tl.load(grad_rows[:, None] + d[None, :], (d < D)[None, :], 0).to(tl.float32)
                weight_part += tl.sum(grad_y * bias[None, :], 1)
                bias_sum = tl.sum(grad_y * row_weight[:, None], 0)
                tl.store(down_bias_parts + tile.to(tl.int64) * D + d, bias_sum, d < D)
    tl.store(weight_parts_BP + block.to(tl.int64) * num_rows + row, weight_part, row_exists)


@triton.jit
def _through_activation(
    grad,
    weight,
    row,
    row_exists,
    first_column,
    gate_PF,
    up_PF,
    grad_gate_PF,
    grad_up_PF,
    hidden_PF,
    gate_bias_part,
    F: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    """The part of `hidden_gradients` after its product, a few columns at a time, for want of registers."""
    WIDTH: tl.constexpr = grad.shape[1]
    if WIDTH > FEW_COLUMNS:
        left, right = halves(grad)
        weight_part = _through_activation(
            left, weight, row, row_exists, first_column,
            gate_PF, up_PF, grad_gate_PF, grad_up_PF, hidden_PF, gate_bias_part, F, ACTIVATION,
        )  # fmt: skip
        weight_part += _through_activation(
            right, weight, row, row_exists, first_column + WIDTH // 2,
            gate_PF, up_PF, grad_gate_PF, grad_up_PF, hidden_PF, gate_bias_part, F, ACTIVATION,
        )  # fmt: skip
    else:
        column = first_column + tl.arange(0, WIDTH)
        column_exists = column < F
        exists = row_exists[:, None] & column_exists[None, :]
        here = row[:, None] * F + column[None, :]
        gate = tl.load(gate_PF + here, exists, 0).to(tl.float32)
        value, slope = step(gate, ACTIVATION)
        activated = gate * value
        slope = value + gate * slope
        if up_PF is None:
            hidden = activated
            grad_gate = slope
        else:
            up = tl.load(up_PF + here, exists, 0).to(tl.float32)
            hidden = activated * up
            grad_gate = slope * up
        weight_part = tl.sum(tl.where(exists, hidden * grad, 0), 1)
        store_tile(hidden_PF, hidden * weight[:, None], row, column, F, exists)
        grad *= weight[:, None]
        grad_gate *= grad
        store_tile(grad_gate_PF, grad_gate, row, column, F, exists)
        if up_PF is not None:
            store_tile(grad_up_PF, activated * grad, row, column, F, exists)
        if gate_bias_part is not None:
            tl.store(gate_bias_part + column, tl.sum(tl.where(exists, grad_gate, 0), 0), column_exists)
    return weight_part


@triton.jit
def weight_gradients(
    hidden_PF,
    a_PF,
    b_PF,
    grad_TN,
    x_TN,
    tokens_P,
    ends_E,
    down_out_ENF,
    a_out_EFN,
    b_out_EFN,
    F: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``Σ_p grad_p hidden_pᵀ``, ``Σ_p a_p x_pᵀ`` and ``Σ_p b_p x_pᵀ`` over each expert's rows p: the first or the
    second, both, or all. Rows of grad and x are gathered by tokens; without tokens, x has a row for each p.

    A program makes one tile of one of the sums, for an expert without rows one of zeros. One sum alone has too few
    tiles for a large device, hence all in one launch. (A crowded expert's rows in several parts, summed later, would
    spread it over more programs.)
    """
    TILES: tl.constexpr = tl.cdiv(F, BLOCK_M) * tl.cdiv(N, BLOCK_N)
    A: tl.constexpr = 0 if hidden_PF is None else 1
    which = tl.program_id(0) // TILES
    tile = tl.program_id(0) % TILES
    expert = tl.program_id(1)
    first = tl.load(ends_E + expert - 1, expert > 0, 0).to(tl.int32)
    last = tl.load(ends_E + expert).to(tl.int32)
    f, f_exists = columns_of(tile // tl.cdiv(N, BLOCK_N), F, BLOCK_M)
    n, n_exists = columns_of(tile % tl.cdiv(N, BLOCK_N), N, BLOCK_N)
    left_PF = a_PF if hidden_PF is None else hidden_PF
    right_TN = x_TN if hidden_PF is None else grad_TN
    if A == 1 and a_PF is not None:  # noqa: SIM102 — known when compiling, unlike the next
        if which == 1:
            left_PF, right_TN = a_PF, x_TN
    if b_PF is not None:  # noqa: SIM102
        if which == 2:
            left_PF, right_TN = b_PF, x_TN

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(first, last, BLOCK_K):
        row = (start + tl.arange(0, BLOCK_K)).to(tl.int64)
        exists = row < last
        right_row = row if tokens_P is None else tl.load(tokens_P + row, exists, 0)
        left = tl.load(left_PF + row[:, None] * F + f[None, :], exists[:, None], 0)
        right = tl.load(right_TN + right_row[:, None] * N + n[None, :], exists[:, None], 0)
        acc = tl.dot(tl.trans(left), right, acc, input_precision=PRECISION)

    place = expert.to(tl.int64) * F * N
    tile_exists = f_exists[:, None] & n_exists[None, :]
    if hidden_PF is not None:  # noqa: SIM102
        if which == 0:
            store_tile(down_out_ENF + place, tl.trans(acc), n, f, F, tl.trans(tile_exists))
    if a_PF is not None:  # noqa: SIM102
        if which == A:
            store_tile(a_out_EFN + place, acc, f, n, N, tile_exists)
    if b_PF is not None:  # noqa: SIM102
        if which == 2:
            store_tile(b_out_EFN + place, acc, f, n, N, tile_exists)
