"""timm hosts: put MoE layers in place of their MLPs.

Any model works whose numbered blocks hold a `timm.layers.Mlp` as ``mlp`` over channels-last tokens: the
VisionTransformer family (vit, deit, deit3, augreg, dino, clip, siglip …), beit, cait, xcit, swin, hiera, twins,
volo and others. Refused, with the reason: hosts whose blocks hold a gated MLP (SwiGLU, GluMlp: eva02, vit_*_swiglu),
a convolutional or fused one (parallel-scaling blocks, Mlp with use_conv or an inner norm), or none at all (resnet).

The MoE layer takes the MLP's own name (`blocks.N.mlp`), so parameter groups, layer decay, gradient checkpointing
and feature extraction go on as before. Its output is a tensor, as the block expects; `vmoe.record` gets the routing.
"""

from __future__ import annotations

import difflib
import re
from functools import partial
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import Mlp as TimmMlp
from timm.layers import get_act_layer
from timm.models.beit import Block as BeitBlock
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import Block as VitBlock
from torch import Tensor, nn

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
PRE_NORM_BLOCKS = (VitBlock, BeitBlock)  # their MLP reads what their norm2 gives
NUMBERED_MLP = re.compile(r"(?:^|\.)\d+\.mlp$")


class HostBlock(NamedTuple):
    """A block's MLP, by its qualified name, and the block that holds it as ``mlp``."""

    name: str
    block: nn.Module
    mlp: TimmMlp


def create_model(name: str, moe: MoESpec, *, weights_follow: bool = False, **kwargs: Any) -> nn.Module:
    """`timm.create_model(name, **kwargs)` with MoE layers put in.

    Raises `ValueError`: `create_host` or `add_moe` refuses.
    """
    return add_moe(create_host(name, **kwargs), moe, weights_follow=weights_follow)


def create_host(name: str, **kwargs: Any) -> nn.Module:
    """`timm.create_model(name, **kwargs)`: the dense model.

    Raises `ValueError`: timm does not know the name, refuses an argument, or cannot get the pretrained weights.
    """
    if not timm.is_model(architecture(name)):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"model.name is {name!r}, which timm {timm.__version__} does not know; near: {near}")
    try:
        model: nn.Module = timm.create_model(name, **kwargs)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"timm cannot create {name!r} with model.kwargs {kwargs}: {error}") from error
    except OSError as error:
        raise ValueError(
            f"the pretrained weights of {name!r} cannot be had: {str(error).splitlines()[0]} Allowed: a network, or"
            " weights that an earlier download left in the cache of the Hugging Face hub"
        ) from error
    return model


def architecture(name: str) -> str:
    """A timm name without the tag of its pretrained weights."""
    return name.split(".")[0]


def add_moe(model: nn.Module, spec: MoESpec, *, weights_follow: bool = False) -> nn.Module:
    """Replace the MLPs of the chosen blocks by MoE layers, in place, and return the model.

    Convert after timm has initialised or loaded the host, and before building an optimizer or an EMA. With
    ``init: upcycle`` experts are made of the block's MLP. A `Dense` gate leaves the model as it is, or, with `experts`
    given, puts one such expert in place of each MLP. weights_follow: the caller loads weights into the model next, so
    that nothing is upcycled.

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
    for (_, block, _), layer in zip(chosen, layers, strict=True):
        block.mlp = layer
        if isinstance(layer, MoE) and layer.norm is not None:
            block.norm2 = nn.Identity()  # the layer applies it
    exempt_from_decay(model)
    return model


def host_blocks(model: nn.Module) -> list[HostBlock]:
    """The blocks whose MLP can be replaced, in order. Raises `ValueError` with the reason if there are none."""
    named = {name: module for name, module in model.named_modules() if NUMBERED_MLP.search(name)}
    reasons = {reason for mlp in named.values() if (reason := why_not(mlp))}
    if isinstance(model, NaFlexVit):
        reasons.add("it pads images to one number of tokens, and padding would be routed and counted")
    if reasons or not named:
        kind = type(model).__name__
        reason = "; ".join(sorted(reasons)) or "it has no numbered blocks with an `mlp`"
        raise ValueError(f"{kind} cannot take MoE layers: {reason}. Allowed: timm models whose blocks hold a plain Mlp")
    return [HostBlock(name, model.get_submodule(name.rpartition(".")[0]), mlp) for name, mlp in named.items()]


def why_not(mlp: TimmMlp) -> str | None:
    """Why this MLP cannot be replaced, or None."""
    if type(mlp) is not TimmMlp:
        return f"its blocks' mlp is a {type(mlp).__name__}, not a timm.layers.Mlp"
    if not isinstance(mlp.fc1, nn.Linear):
        return "its blocks' Mlp is convolutional (use_conv)"
    if not isinstance(mlp.norm, nn.Identity):
        return "its blocks' Mlp has a norm between its layers"
    if mlp.fc1.in_features != mlp.fc2.out_features:
        return f"its blocks' Mlp changes the width from {mlp.fc1.in_features} to {mlp.fc2.out_features}"
    if (mlp.fc1.bias is None) != (mlp.fc2.bias is None):
        return "its blocks' Mlp has a bias in one layer only"
    return None


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

    number: of the layer among the model's MoE layers. tokens: of an image, there. weights_follow: as in `add_moe`.
    """
    mlp = host.mlp
    weight = mlp.fc1.weight
    on_meta = weight.device.type == "meta"
    activation, gate_slope = choose_activation(spec, mlp.act)
    described = HostMlp(
        dim=mlp.fc1.in_features,
        hidden=mlp.fc1.out_features,
        activation=activation,
        bias=mlp.fc1.bias is not None,
        std_in=FRESH_STD if on_meta else float(weight.detach().float().std()),
        std_out=FRESH_STD if on_meta else float(mlp.fc2.weight.detach().float().std()),
        dropout_hidden=mlp.drop1.p,
        dropout_out=mlp.drop2.p,
        norm=norm_before(host.block),
        tokens=tokens,
        dense=DenseMlp(mlp.fc1, mlp.fc2),
        gate_slope=gate_slope,
    )
    with weight.device:
        layer: MoE | DenseExperts
        if isinstance(spec.gate, Dense):
            layer = build_dense(spec, described, weights_follow=weights_follow)
        else:
            layer = build_moe(spec, described, number, weights_follow=weights_follow)
    return layer.to(weight.dtype).train(mlp.training)


def norm_before(block: nn.Module) -> nn.Module | None:
    """The norm whose output is the block's MLP's input, where the block is known to be built so."""
    if type(block) not in PRE_NORM_BLOCKS:
        return None
    norm: Any = block.norm2
    return norm


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


def count_tokens(model: nn.Module, blocks: list[HostBlock]) -> list[int]:
    """Tokens of an image at each of the MLPs, by a forward of one image of the model's own size."""
    counted: dict[nn.Module, int] = {}

    def count(mlp: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counted[mlp] = inputs[0].shape[:-1].numel()

    host: Any = model
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or host.pretrained_cfg["input_size"][1:]
    weight = blocks[0].mlp.fc1.weight
    handles = [block.mlp.register_forward_pre_hook(count) for block in blocks]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size, device=weight.device, dtype=weight.dtype))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return [counted[block.mlp] for block in blocks]


def named_activation(name: str) -> nn.Module:
    """timm's activation of that name."""
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
