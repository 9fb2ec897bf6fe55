"""The fused path: all of gather, products, activation, weighting and scatter as one operator with its own backward.

Between forward and backward it keeps x itself, not the rows gathered of it, and of the hidden rows only what the
activation reads, or nothing (recompute); experts' outputs are not kept, since the gradient by a pair's weight w follows
from ``∂L/∂w = <∂L/∂y, hidden W + b> = <Wᵀ ∂L/∂y, hidden> + <∂L/∂y, b>`` (arXiv 2512.14080, section 3).

The operator is one for all kinds of experts; who multiplies is a choice of kernels:

- ``tiled``: torch's products on tiles that fit the caches (CPU);
- ``triton``: kernels that gather, multiply, activate and scatter at once (CUDA).

Shapes: T tokens, D width, E experts, F hidden width, R rank, P rows of the list of pairs. Rows past the last of
`ends_E` are padding: nothing is computed of them, and their gradients are 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..experts import Experts
from ..routing import Routing
from . import tiled
from .grouped_linear import autocast_type, count_rows, grouped_linear
from .limits import why_not_fused, why_not_triton
from .network import Gradients, Hidden, Inputs, Network
from .options import DispatchOptions
from .pairs import sort_pairs


class Kernels(NamedTuple):
    forward: Callable[[Inputs, bool], tuple[Tensor, Hidden]]
    backward: Callable[[Tensor, Inputs, Hidden], Gradients]


def find_kernels(name: str) -> Kernels:
    if name == "tiled":
        return Kernels(tiled.forward, tiled.backward)
    from . import triton  # only where it is installed

    return Kernels(triton.forward, triton.backward)


def dispatch_fused(
    x_TD: Tensor,
    features_TER: Tensor | None,
    routing: Routing,
    experts: Experts,
    options: DispatchOptions,
    *,
    kernels: str,
) -> Tensor:
    """What `dispatch_reference` computes. Raises `ValueError` for experts that it cannot compute."""
    dtype = autocast_type(x_TD)
    unfused = why_not_fused(experts) or (why_not_triton(x_TD.device, dtype) if kernels == "triton" else None)
    if unfused is not None:
        raise ValueError(f"moe.dispatch is {kernels!r}, but {unfused}; allowed: auto, reference, grouped")
    assert experts.activation_name is not None
    pairs = sort_pairs(routing, options.capacity)
    x_TD = x_TD.to(dtype).contiguous()
    z_PR = None if features_TER is None else pairs.of(features_TER.to(dtype))
    if features_TER is None and experts.feature_layer is not None:
        z_PR = grouped_linear(x_TD[pairs.tokens_P], experts.feature_layer.weight, None, pairs.ends_E)
    gate, up, down = experts.products
    network = Network(gate.weight, gate.bias, None if up is None else up.weight, down.weight, down.bias)
    return _fused(
        x_TD,
        z_PR,
        pairs.of(routing.weights),
        pairs.tokens_P,
        pairs.ends_E,
        *network.map(lambda weight: weight.to(dtype)),
        experts.activation_name,
        kernels,
        torch.is_grad_enabled() and not options.recompute,
    )[0]


@torch.library.custom_op("vmoe::experts", mutates_args=())
def _fused(
    x_TD: Tensor,
    z_PR: Tensor | None,
    weights_P: Tensor,
    tokens_P: Tensor,
    ends_E: Tensor,
    gate_EFI: Tensor,
    gate_bias_EF: Tensor | None,
    up_EFD: Tensor | None,
    down_EDF: Tensor,
    down_bias_ED: Tensor | None,
    activation: str,
    kernels: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y_TD, gate_PF, up_PF), the last two as in `Hidden`."""
    network = Network(gate_EFI, gate_bias_EF, up_EFD, down_EDF, down_bias_ED)
    inputs = Inputs(x_TD, z_PR, weights_P, tokens_P, ends_E, network, activation)
    y_TD, hidden = find_kernels(kernels).forward(inputs, keep)
    return y_TD, *hidden


@_fused.register_fake
def _(x_TD, z_PR, weights_P, tokens_P, ends_E, gate_EFI, gate_bias_EF, up_EFD, down_EDF, *rest):  # type: ignore[no-untyped-def]
    keep, hidden = rest[-1], gate_EFI.shape[1]
    rows = tokens_P.shape[0] if keep else 0
    gate_PF = x_TD.new_empty(rows, hidden)
    return torch.empty_like(x_TD), gate_PF, x_TD.new_empty(0 if up_EFD is None else rows, hidden)


@torch.library.custom_op("vmoe::experts_backward", mutates_args=())
def _fused_backward(
    grad_TD: Tensor,
    x_TD: Tensor,
    z_PR: Tensor | None,
    weights_P: Tensor,
    tokens_P: Tensor,
    ends_E: Tensor,
    gate_EFI: Tensor,
    gate_bias_EF: Tensor | None,
    up_EFD: Tensor | None,
    down_EDF: Tensor,
    down_bias_ED: Tensor | None,
    gate_PF: Tensor,
    up_PF: Tensor,
    activation: str,
    kernels: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients by x, z, weights and the five tensors of the network; an empty tensor for what is None."""
    network = Network(gate_EFI, gate_bias_EF, up_EFD, down_EDF, down_bias_ED)
    inputs = Inputs(x_TD, z_PR, weights_P, tokens_P, ends_E, network, activation)
    grads = find_kernels(kernels).backward(grad_TD, inputs, Hidden(gate_PF, up_PF))
    none = x_TD.new_empty(0)
    rest = [none.clone() if grad is None else grad for grad in (grads.z_PR, grads.weights_P, *grads.network)]
    return grads.x_TD, *rest  # type: ignore[return-value]


@_fused_backward.register_fake
def _(grad_TD, x_TD, z_PR, weights_P, tokens_P, ends_E, *rest):  # type: ignore[no-untyped-def]
    like = (x_TD, z_PR, weights_P, *rest[:5])
    return tuple(x_TD.new_empty(0) if tensor is None else torch.empty_like(tensor) for tensor in like)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.activation, ctx.kernels, _ = inputs
    hidden = output[1:]
    ctx.save_for_backward(*tensors, *hidden)
    ctx.mark_non_differentiable(*hidden)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_TD: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad_TD is None:
        return (None,) * 13
    tensors = ctx.saved_tensors
    # a sum gives a gradient of stride 0
    found = _fused_backward(grad_TD.contiguous(), *tensors, ctx.activation, ctx.kernels)
    grads = [
        grad if needed else None for grad, needed in zip(found, _differentiable(ctx.needs_input_grad), strict=True)
    ]
    return (*grads[:3], None, None, *grads[3:], None, None, None)


def _differentiable(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of the operator's inputs those that may have a gradient: x, z, weights and the network's five."""
    return inputs[:3] + inputs[5:10]


_fused.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.vmoe.experts, get_raw=True)
def _flops(*inputs: Any, **__: Any) -> int:
    tokens_P, ends_E, gate_EFI, _, up_EFD, down_EDF = inputs[3:9]
    multiply_adds = sum(weight[0].numel() for weight in (gate_EFI, up_EFD, down_EDF) if weight is not None)
    return 2 * multiply_adds * count_rows(tokens_P, ends_E)


@register_flop_formula(torch.ops.vmoe.experts_backward, get_raw=True)
def _backward_flops(*inputs: Any, **__: Any) -> int:
    return 2 * _flops(*inputs[1:])
