"""Grouped products by torch's own fused kernel, where a device has one; no host synchronisation.

Shapes: P rows in all, E experts, I features in, O features out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ALIGNMENT = 16  # bytes that rows must be a multiple of


def serves(x: Tensor, *widths: int) -> bool:
    """Whether the kernel takes rows of x's type and device with these widths.

    It exists for bfloat16 on compute capability 9 and 10; elsewhere torch loops over the groups.
    """
    if x.device.type != "cuda" or x.dtype != torch.bfloat16:
        return False
    aligned = all(width * x.itemsize % ALIGNMENT == 0 for width in widths)
    return aligned and torch.cuda.get_device_capability(x.device)[0] in (9, 10)


def linear(x_PI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, ends_E: Tensor) -> Tensor:
    """(P, O): see `vmoe.moe.dispatch.grouped_linear`."""
    y_PO = functional.grouped_mm(x_PI, weight_EOI.mT, offs=ends_E.int())
    experts_P = experts_of_rows(len(x_PI), ends_E)
    if bias_EO is not None:
        y_PO += bias_EO[experts_P.clamp(max=len(bias_EO) - 1)]
    return y_PO.masked_fill_((experts_P == len(ends_E))[:, None], 0)  # the kernel leaves padding as it found it


def outer(y_PO: Tensor, x_PI: Tensor, ends_E: Tensor) -> Tensor:
    """(E, O, I): the sum over each group's rows of the outer products of y and x."""
    products_EOI = functional.grouped_mm(y_PO.mT, x_PI, offs=ends_E.int())
    empty_E = ends_E.diff(prepend=ends_E.new_zeros(1)) == 0
    return products_EOI.masked_fill_(empty_E[:, None, None], 0)  # some devices leave what was there


def group_sums(y_PO: Tensor, ends_E: Tensor) -> Tensor:
    """(E, O): the sum of each group's rows, as one product with a table of ones."""
    experts_P = experts_of_rows(len(y_PO), ends_E)
    member_EP = experts_P == torch.arange(len(ends_E), device=y_PO.device)[:, None]
    return member_EP.to(y_PO.dtype) @ y_PO


def experts_of_rows(rows: int, ends_E: Tensor) -> Tensor:
    """(P,) int64: the group of each row; E for rows past the last group."""
    return torch.searchsorted(ends_E, torch.arange(rows, device=ends_E.device), right=True)
