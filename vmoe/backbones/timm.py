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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Mlp as TimmMlp
from timm.layers import use_reentrant_ckpt
from timm.models import push_to_hf_hub, save_for_hf
from timm.models.beit import Block as BeitBlock
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import Block as VitBlock
from torch import Tensor, nn

from vmoe.moe import DenseMlp, MoESpec, evaluating

from .host import HostBlock, put_moe
from .timm_arguments import OwnArguments

PRE_NORM_BLOCKS = (VitBlock, BeitBlock)  # their MLP reads what their norm2 gives
NUMBERED_MLP = re.compile(r"(?:^|\.)\d+\.mlp$")


def create_model(name: str, moe: MoESpec, *, weights_follow: bool = False, **kwargs: Any) -> nn.Module:
    """`timm.create_model(name, **kwargs)` with MoE layers put in.

    Raises `ValueError`: `create_host` or `add_moe` refuses.
    """
    return add_moe(create_host(name, **kwargs), moe, weights_follow=weights_follow)


def create_host(name: str, **kwargs: Any) -> nn.Module:
    """`timm.create_model(name, **kwargs)`: the dense model. kwargs may hold those of `timm_arguments` too.

    Raises `ValueError`: timm does not know the name, refuses an argument, or cannot get the pretrained weights; or the
    model has nothing for an argument of `timm_arguments` to change.
    """
    if not timm.is_model(architecture(name)):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"model.name is {name!r}, which timm {timm.__version__} does not know; near: {near}")
    own, kwargs = OwnArguments.take(kwargs)
    try:
        model: nn.Module = timm.create_model(name, **kwargs)
    except OSError as error:
        raise ValueError(
            f"the pretrained weights of {name!r} cannot be had: {str(error).splitlines()[0]} Allowed: a network, or"
            " weights that an earlier download left in the cache of the Hugging Face hub"
        ) from error
    except Exception as error:  # what a model's own code makes of arguments that are none of its
        told = f"{type(error).__name__}: {error}" if isinstance(error, KeyError | ZeroDivisionError) else error
        raise ValueError(f"timm cannot create {name!r} with model.kwargs {kwargs}: {told}") from error
    own.apply(model)
    return model


def architecture(name: str) -> str:
    """A timm name without the tag of its pretrained weights."""
    return name.split(".")[0]


def add_moe(model: nn.Module, spec: MoESpec, *, weights_follow: bool = False) -> nn.Module:
    """Put MoE layers into a dense timm model, in place, and return it; see `vmoe.backbones.host.put_moe`."""
    return put_moe(model, spec, host_blocks, count_tokens, weights_follow=weights_follow)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model, with MoE layers in or without."""
    named = dict(model.named_modules())
    return [named[name.removesuffix(".mlp")] for name in named if NUMBERED_MLP.search(name)]


def host_blocks(model: nn.Module) -> list[HostBlock]:
    """The blocks whose MLP can be replaced, in order. Raises `ValueError` with the reason if there are none."""
    named: dict[str, Any] = {name: module for name, module in model.named_modules() if NUMBERED_MLP.search(name)}
    reasons = {reason for mlp in named.values() if (reason := why_not(mlp))}
    if isinstance(model, NaFlexVit):
        reasons.add("it pads images to one number of tokens, and padding would be routed and counted")
    if reasons or not named:
        kind = type(model).__name__
        reason = "; ".join(sorted(reasons)) or "it has no numbered blocks with an `mlp`"
        raise ValueError(f"{kind} cannot take MoE layers: {reason}. Allowed: timm models whose blocks hold a plain Mlp")
    return [describe_block(name, model.get_submodule(name.rpartition(".")[0]), mlp) for name, mlp in named.items()]


def describe_block(name: str, block: nn.Module, mlp: TimmMlp) -> HostBlock:
    """A block by its MLP's name."""
    return HostBlock(
        name=name,
        block=block,
        mlp=mlp,
        dense=DenseMlp(mlp.fc1, mlp.fc2),
        activation=mlp.act,
        dropout_hidden=mlp.drop1.p,
        dropout_out=mlp.drop2.p,
        norm=norm_before(block),
    )


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


def norm_before(block: nn.Module) -> nn.Module | None:
    """The norm whose output is the block's MLP's input, where the block is known to be built so."""
    if type(block) not in PRE_NORM_BLOCKS:
        return None
    norm: Any = block.norm2
    return norm


def count_tokens(model: nn.Module, blocks: list[HostBlock]) -> list[int]:
    """Tokens of an image at each of the MLPs, by a forward of one image of the model's own size."""
    counted: dict[nn.Module, int] = {}

    def count(mlp: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counted[mlp] = inputs[0].shape[:-1].numel()

    host: Any = model
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or host.pretrained_cfg["input_size"][1:]
    weight = blocks[0].dense.fc1.weight
    handles = [block.mlp.register_forward_pre_hook(count) for block in blocks]
    try:
        with torch.no_grad(), evaluating(model):
            model(torch.zeros(1, 3, *size, device=weight.device, dtype=weight.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return [counted[block.mlp] for block in blocks]


def enable_checkpointing(model: nn.Module) -> None:
    """Activation checkpointing, by the model's own method. Raises `ValueError` for a model without one."""
    method = getattr(model, "set_grad_checkpointing", None)
    if method is None:
        raise ValueError(f"model.grad_checkpointing is true, but {type(model).__name__} has none; allowed: false")
    if use_reentrant_ckpt():
        raise ValueError("timm is set to reentrant checkpointing, which loses the gradient of balance losses; unset it")
    method()


def save_folder(model: nn.Module, folder: Path, about: Mapping[str, Any]) -> None:
    """Write model.safetensors and config.json, as timm itself does (`timm.models.save_for_hf`).

    about: `data_config` (sizes, crop, mean, std), and `model_config`, further entries of config.json.
    """
    save_for_hf(model, str(folder), safe_serialization=True, **of_own_weights(about))


def push_folder(model: nn.Module, folder: Path, about: Mapping[str, Any], repository: str, *, private: bool) -> None:
    """Put what `save_folder` writes onto the Hugging Face hub, by timm's own function."""
    push_to_hf_hub(model, repository, private=private, safe_serialization=True, **of_own_weights(about))


def of_own_weights(about: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the tag and the licence of timm's weights of that model, which timm would say these have."""
    return {**about, "model_config": {**about["model_config"], "pretrained_cfg": {"tag": None, "license": None}}}
