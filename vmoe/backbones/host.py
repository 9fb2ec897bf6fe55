"""What adapters share: MoE layers in place of the MLPs of a host model's blocks.

An adapter says, for its models, which blocks there are and what each one's MLP is (`HostBlock`), and how many tokens a
sequence has there. The rest is the same for all hosts, and is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from vmoe.moe import (
    Dense,
    DenseExperts,
    DenseMlp,
    Gate,
    HostMlp,
    Mlp,
    MoE,
    MoESpec,
    Soft,
    build_dense,
    build_moe,
    moe_layers,
)
from vmoe.moe.experts import StackedLinear
from vmoe.moe.upcycle import SLOPES

FRESH_STD = 0.02  # of expert weights when the host's are on the meta device and have none to measure


@dataclass(frozen=True, eq=False)
class HostBlock:
    """A block of a host model, and its MLP that a MoE layer can stand for.

    name: of the MLP in the model, such as ``blocks.1.mlp``.
    block: what holds the MLP as ``mlp``. mlp: the MLP, a function of tokens (…, D).
    dense: its two linear layers. activation: between them. dropout_hidden, dropout_out: rates after each of them.
    norm: the block's own, whose output the MLP reads, where that is known.
    """

    name: str
    block: nn.Module
    mlp: nn.Module
    dense: DenseMlp
    activation: nn.Module
    dropout_hidden: float
    dropout_out: float
    norm: nn.Module | None


HostBlocks = Callable[[nn.Module], list[HostBlock]]
CountTokens = Callable[[nn.Module, list[HostBlock]], list[int]]


def put_moe(
    model: nn.Module, spec: MoESpec, host_blocks: HostBlocks, count_tokens: CountTokens, *, weights_follow: bool
) -> nn.Module:
    """Replace the MLPs of the chosen blocks by MoE layers, in place, and return the model: an adapter's `add_moe`.

    Convert after the host is initialised or loaded, and before building an optimizer or an EMA. With ``init: upcycle``
    experts are made of the block's MLP. A `Dense` gate leaves the model as it is, or, with `experts` given, puts one
    such expert in place of each MLP.

    host_blocks, count_tokens: the adapter's. weights_follow: the caller loads weights into the model next, so that
    nothing is upcycled.

    Raises `ValueError`, before anything is changed: no suitable block, a block chosen that is not there, MoE
    layers already in, or a spec that does not fit the width.
    """
    if spec.keeps_host:
        return model
    if any(moe_layers(model)):
        raise ValueError("the model has MoE layers already; give add_moe the dense model")
    blocks = host_blocks(model)
    chosen = [blocks[i] for i in choose_blocks(spec.layers, len(blocks))]
    spec.check_layers(len(chosen))
    tokens = count_tokens(model, chosen) if isinstance(spec.gate, Soft) else [None] * len(chosen)
    layers = [build_layer(spec, host, i, tokens[i], weights_follow) for i, host in enumerate(chosen)]
    for host, layer in zip(chosen, layers, strict=True):
        replace_mlp(host, layer)
    exempt_from_decay(model)
    return model


def choose_blocks(layers: str | tuple[int, ...], count: int) -> list[int]:
    """The block numbers that `MoESpec.layers` stands for, ascending."""
    allowed = f"all, everyN, lastN with N from 1 to {count}, or block numbers from 0 to {count - 1}"
    if isinstance(layers, str):
        match = re.fullmatch(r"all|(every|last)([1-9]\d*)", layers)
        number = int(match[2]) if match and match[2] else 1
        if match is None or number > count:
            raise ValueError(f"moe.layers is {layers!r}; allowed: {allowed}")
        if match[1] == "last":
            return list(range(count - number, count))
        return list(range(number - 1, count, number))
    if not layers or len(set(layers)) < len(layers) or not all(0 <= i < count for i in layers):
        raise ValueError(f"moe.layers is {list(layers)}; allowed: {allowed}, each once")
    return sorted(layers)


def build_layer(
    spec: MoESpec, host: HostBlock, number: int, tokens: int | None, weights_follow: bool
) -> MoE | DenseExperts:
    """The layer for one block, on its device, in its type and training mode.

    number: of the layer among the model's MoE layers. tokens: of a sequence, there. weights_follow: as in `put_moe`.
    """
    fc1, fc2 = host.dense.fc1, host.dense.fc2
    on_meta = fc1.weight.device.type == "meta"
    activation, gate_slope = choose_activation(spec, host.activation)
    described = HostMlp(
        dim=fc1.in_features,
        hidden=fc1.out_features,
        activation=activation,
        bias=fc1.bias is not None,
        std_in=FRESH_STD if on_meta else float(fc1.weight.detach().float().std()),
        std_out=FRESH_STD if on_meta else float(fc2.weight.detach().float().std()),
        dropout_hidden=host.dropout_hidden,
        dropout_out=host.dropout_out,
        norm=host.norm,
        tokens=tokens,
        dense=host.dense,
        gate_slope=gate_slope,
    )
    with fc1.weight.device:
        layer: MoE | DenseExperts
        if isinstance(spec.gate, Dense):
            layer = build_dense(spec, described, weights_follow=weights_follow)
        else:
            layer = build_moe(spec, described, number, weights_follow=weights_follow)
    return layer.to(fc1.weight.dtype).train(host.mlp.training)


def replace_mlp(host: HostBlock, layer: MoE | DenseExperts) -> None:
    """Put a layer where the MLP is. A norm that the layer took over is no longer the block's to apply."""
    block: Any = host.block
    block.mlp = layer
    if isinstance(layer, MoE) and layer.norm is not None:
        (name,) = (name for name, child in block.named_children() if child is layer.norm)
        setattr(block, name, nn.Identity())


def choose_activation(spec: MoESpec, host: nn.Module) -> tuple[nn.Module, float]:
    """The experts' activation, and the slope of a GLU's gate: those that stand for the host's when it is upcycled."""
    experts = spec.experts
    if experts is not None and experts.activation is not None:
        of_sigmoid = SLOPES.get(type(host).__name__, 1.0)
        return named_activation(experts.activation), of_sigmoid if experts.activation == "sigmoid" else 1.0
    if spec.init == "fresh" or isinstance(experts, Mlp):
        return host, 1.0
    slope = SLOPES.get(type(host).__name__)
    if slope is None:
        raise ValueError(
            f"init is 'upcycle' for GLU experts and a host with {type(host).__name__}; allowed: a host with SiLU or"
            " GELU, which are products, or experts.activation"
        )
    return nn.Sigmoid(), slope


def named_activation(name: str) -> nn.Module:
    """timm's activation of that name."""
    from timm.layers import get_act_layer  # its models come with it, which takes a second

    try:
        activation = get_act_layer(name)
    except KeyError:
        activation = None
    if activation is None:
        raise ValueError(f"experts.activation is {name!r}; allowed: timm's activations, such as gelu, silu or relu")
    return activation()


def exempt_from_decay(model: nn.Module) -> None:
    """Add expert biases, gate scales and gate biases to the model's `no_weight_decay()`.

    timm exempts one-dimensional parameters by their shape; stacked biases have two dimensions.
    """
    names = {
        f"{module_name}.{name}"
        for module_name, module in model.named_modules()
        if isinstance(module, StackedLinear | Gate)
        for name, _ in module.named_parameters(recurse=False)
        if name in ("bias", "scale")
    }
    host: Any = model
    own = host.no_weight_decay() if hasattr(host, "no_weight_decay") else ()
    # An instance attribute of plain data: deepcopy, EMA and pickling carry it along.
    host.no_weight_decay = partial(set, frozenset(own) | frozenset(names))
