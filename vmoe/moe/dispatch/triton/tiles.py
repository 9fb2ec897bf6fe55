"""What the kernels' tiles have in common: how a part of a matrix is read, multiplied and written.

Shapes: M rows and N columns of a tile, K what a product sums over.
"""

import triton
import triton.language as tl

FEW_COLUMNS = tl.constexpr(32)  # of a tile, to be activated at once: more and registers spill


@triton.jit
def columns_of(block, N: tl.constexpr, BLOCK_N: tl.constexpr):
    """A block's columns (BLOCK_N) and which of them exist; for those that do not, others stand, as with rows."""
    column = block * BLOCK_N + tl.arange(0, BLOCK_N)
    exists = column < N
    if N % BLOCK_N != 0:
        column = column % N
    return column, exists


@triton.jit
def load_part(pointers, k, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """What lies there, 0 where k reaches past K."""
    return tl.load(pointers) if K % BLOCK_K == 0 else tl.load(pointers, k < K, 0)


@triton.jit
def multiply(acc, rows, columns, K: tl.constexpr, STRIDE: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr):
    """``acc + A B``: A (M, K) by pointers to its rows, B (K, N) by pointers to its columns, whose elements lie STRIDE
    apart.
    """
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a = load_part(rows[:, None] + k[None, :], k[None, :], K, BLOCK_K)
        b = load_part(columns[None, :] + k[:, None] * STRIDE, k[:, None], K, BLOCK_K)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def multiply_two(
    acc,
    other_acc,
    rows,
    columns,
    other_columns,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``acc + A B, other_acc + A B'``, reading A once; the columns of B and B' are contiguous."""
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a = load_part(rows[:, None] + k[None, :], k[None, :], K, BLOCK_K)
        b = load_part(columns[None, :] + k[:, None], k[:, None], K, BLOCK_K)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
        other_b = load_part(other_columns[None, :] + k[:, None], k[:, None], K, BLOCK_K)
        other_acc = tl.dot(a, other_b, other_acc, input_precision=PRECISION)
    return acc, other_acc


@triton.jit
def store_tile(out, value, row, column, WIDTH: tl.constexpr, exists):
    """Into the (…, WIDTH) matrix at `out`, in its type."""
    tl.store(out + row[:, None] * WIDTH + column[None, :], value.to(out.dtype.element_ty), exists)


@triton.jit
def halves(tile):
    """Its left and its right columns."""
    M: tl.constexpr = tile.shape[0]
    N: tl.constexpr = tile.shape[1]
    return tl.split(tl.permute(tl.reshape(tile, (M, 2, N // 2)), (0, 2, 1)))
