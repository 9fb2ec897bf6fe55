"""The sizes of the kernels' tiles: one table, from a product's sizes, its type and the chip.

In 16 bits a thread gets at most 128 registers, so that two programs of 8 warps share a multiprocessor and one
multiplies while the other loads or stores; narrow layers have so few steps of a product that this matters most. Their
shared memory is at most 97 KiB on the chips with 227 KiB (H100, B200) and 48 KiB on others. Chosen by what the compiler
reports, not yet by measurement.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton

SMALLEST = 16  # side of a matrix product


class Blocks(NamedTuple):
    """m, n, k: of a tile's rows, its columns, and what a product sums over at once."""

    m: int
    n: int
    k: int
    warps: int
    stages: int
    registers: int | None = None

    def options(self) -> dict[str, Any]:
        return {
            "BLOCK_M": self.m,
            "BLOCK_N": self.n,
            "BLOCK_K": self.k,
            "num_warps": self.warps,
            "num_stages": self.stages,
            "maxnreg": self.registers,
            "enable_fp_fusion": True,
        }


def fit(width: int, largest: int) -> int:
    """The widest block up to a largest that covers a width with little waste."""
    candidates = [largest >> shift for shift in range(largest.bit_length()) if largest >> shift >= SMALLEST]
    for block in candidates:
        if triton.cdiv(width, block) * block <= 1.15 * width:
            return block
    return min(candidates, key=lambda block: triton.cdiv(width, block) * block)


def fit_whole(width: int, largest: int) -> int:
    """The narrowest block that covers a width, up to a largest."""
    return min(largest, max(SMALLEST, triton.next_power_of_2(width)))


def row_block(rows: int, experts: int, dtype: torch.dtype, precision: str) -> int:
    """Rows of a tile, in every product of rows with weights."""
    if dtype == torch.float32 and precision == "ieee":
        return 64
    return 128 if rows >= 256 * experts else 64


def product_blocks(m: int, n: int, k: int, dtype: torch.dtype, precision: str, *, accumulators: int = 1) -> Blocks:
    """For rows with weights; accumulators: tiles of sums that a program holds at once, 1 or 2."""
    if dtype == torch.float32 and precision == "ieee":
        return Blocks(m, fit(n, 64 // accumulators), fit_whole(k, 16), 4, 2)
    if dtype == torch.float32:
        return Blocks(m, fit(n, 64), fit_whole(k, 32), 4 * accumulators, 3)
    largest_k, stages = (64, 3) if has_large_memory() else (32, 4)
    return Blocks(m, fit(n, 128 // accumulators), fit_whole(k, largest_k), m // 16, stages, 128)


def outer_blocks(m: int, n: int, dtype: torch.dtype, precision: str) -> Blocks:
    """For the weights' gradients, where k runs over rows; of their stages two go to reading which rows to gather."""
    if dtype == torch.float32 and precision == "ieee":
        return Blocks(fit(m, 64), fit(n, 64), 16, 4, 2)
    if dtype == torch.float32:
        return Blocks(fit(m, 128), fit(n, 64), 32, 4, 3)
    return Blocks(fit(m, 128), fit(n, 128), 64 if has_large_memory() else 32, 8, 5, 128)


def has_large_memory() -> bool:
    """Whether a multiprocessor of the current device has 227 KiB of shared memory, not 99 to 163."""
    return not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] in (9, 10)
