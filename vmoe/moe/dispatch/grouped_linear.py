"""A linear map whose rows lie in consecutive groups, one an expert: a custom operator with static shapes.

The sizes of the groups are data, and stay inside the operator, so a graph around it is captured whole. It takes any
type, width and group, empty ones too: by torch's fused kernel where the device has one for them, else group by group,
for which the groups' ends are read on the host.

Shapes: P rows in all, E experts, I features in, O features out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import grouped_mm


def grouped_linear(x_PI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, ends_E: Tensor) -> Tensor:
    """(P, O): rows ``ends[e-1]:ends[e]`` times expert e's weight, plus its bias; 0 past the last end.

    ends_E: int64, ascending, where each expert's rows end. Under autocast the inputs are cast, as for `linear`.
    """
    dtype = autocast_type(x_PI)
    bias_EO = None if bias_EO is None else bias_EO.to(dtype)
    return _linear(x_PI.to(dtype), weight_EOI.to(dtype), bias_EO, ends_E)


def autocast_type(x: Tensor) -> torch.dtype:
    """The type that products of x are computed in: autocast's within its scope, else x's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


@torch.library.custom_op("vmoe::grouped_linear", mutates_args=())
def _linear(x_PI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, ends_E: Tensor) -> Tensor:
    if grouped_mm.serves(x_PI, *weight_EOI.shape[1:]):
        return grouped_mm.linear(x_PI, weight_EOI, bias_EO, ends_E)
    y_PO = x_PI.new_zeros(x_PI.shape[0], weight_EOI.shape[1])
    start = 0
    for e, end in enumerate(ends_E.tolist()):
        rows, weight_IO = x_PI[start:end], weight_EOI[e].mT
        if bias_EO is None:
            torch.mm(rows, weight_IO, out=y_PO[start:end])
        else:
            torch.addmm(bias_EO[e], rows, weight_IO, out=y_PO[start:end])
        start = end
    return y_PO


@_linear.register_fake
def _(x_PI: Tensor, weight_EOI: Tensor, bias_EO: Tensor | None, ends_E: Tensor) -> Tensor:
    return x_PI.new_empty(x_PI.shape[0], weight_EOI.shape[1])


@torch.library.custom_op("vmoe::grouped_outer", mutates_args=())
def _outer(y_PO: Tensor, x_PI: Tensor, ends_E: Tensor) -> Tensor:
    """(E, O, I): the sum over each group's rows of the outer products of y and x; 0 for an empty group."""
    if grouped_mm.serves(x_PI, y_PO.shape[1], x_PI.shape[1]):
        return grouped_mm.outer(y_PO, x_PI, ends_E)
    products_EOI = x_PI.new_zeros(ends_E.shape[0], y_PO.shape[1], x_PI.shape[1])
    start = 0
    for e, end in enumerate(ends_E.tolist()):
        torch.mm(y_PO[start:end].mT, x_PI[start:end], out=products_EOI[e])
        start = end
    return products_EOI


@_outer.register_fake
def _(y_PO: Tensor, x_PI: Tensor, ends_E: Tensor) -> Tensor:
    return x_PI.new_empty(ends_E.shape[0], y_PO.shape[1], x_PI.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Tensor], output: Tensor) -> None:
    x_PI, weight_EOI, bias_EO, ends_E = inputs
    ctx.save_for_backward(x_PI, weight_EOI, ends_E)
    ctx.has_bias = bias_EO is not None


def _backward(ctx: Any, grad_PO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    x_PI, weight_EOI, ends_E = ctx.saved_tensors
    grad_PO = grad_PO.contiguous()  # y.sum() gives one of stride 0
    needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
    grad_x = _linear(grad_PO, weight_EOI.mT, None, ends_E) if needs_x else None
    grad_weight = _outer(grad_PO, x_PI, ends_E) if needs_weight else None
    grad_bias = None
    if ctx.has_bias and needs_bias:
        grad_bias = grouped_mm.group_sums(grad_PO, ends_E)
    return grad_x, grad_weight, grad_bias, None


_linear.register_autograd(_backward, setup_context=_save)


def count_rows(rows: Tensor, ends_E: Tensor) -> int:
    """Rows that are computed: those up to the last end; all of them where the ends have no values (fake, meta)."""
    has_values = type(ends_E) is Tensor and not ends_E.is_meta
    return int(ends_E[-1]) if has_values else len(rows)


@register_flop_formula(torch.ops.vmoe.grouped_linear, get_raw=True)
def _linear_flops(x_PI: Any, weight_EOI: Any, bias_EO: Any, ends_E: Any, **_: Any) -> int:
    return 2 * count_rows(x_PI, ends_E) * weight_EOI[0].numel()


@register_flop_formula(torch.ops.vmoe.grouped_outer, get_raw=True)
def _outer_flops(y_PO: Any, x_PI: Any, ends_E: Any, **_: Any) -> int:
    return 2 * count_rows(y_PO, ends_E) * y_PO.shape[1] * x_PI.shape[1]
