"""What users call from Python: models by name, models from checkpoints, MoE layers in a model of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from .backbones import backbone_of_model, backbone_of_name
from .backbones.size import check_arguments, check_size
from .config import parse_moe
from .moe import MoESpec
from .train.checkpoint import counting_weights, read_checkpoint

MOST_MISFITS = 3  # named in one error
MOST_TIMES = 4  # its weights, a model has numbers while it is made: MLPs among them, whose places MoE layers take
BUFFERS = 2**24  # numbers that a model may hold without weights for them, such as its masks
Weights = Literal["evaluated", "raw", "ema"]

MoE = str | dict[str, Any] | MoESpec
"""A gate's name (``"self"``), a mapping as in a config's `moe` section, or a `MoESpec`."""


def create_model(name: str, moe: MoE = "topk", **kwargs: Any) -> nn.Module:
    """A timm model, or GPT-2, with MoE layers in it::

        vmoe.create_model("deit_small_patch16_224", moe="routing_free", num_classes=10)
        vmoe.create_model("vit_base_patch16_224", moe={"gate": {"kind": "topk", "k": 1}, "layers": "last2"})
        vmoe.create_model("gpt2", moe={"gate": "self", "layers": "all"}, block_size=512)

    kwargs go to `timm.create_model`, or to `vmoe.backbones.gpt2.create_host` for gpt2, gpt2-medium, -large and -xl.
    The model returns what the library's returns; `vmoe.record` gives its routing.

    Raises `ValueError`: a name that the library does not know, an impossible spec, or a model that cannot take MoE
    layers; `ImportError` for GPT-2 without transformers.
    """
    model: nn.Module = backbone_of_name(name).create_model(name, parse_moe(moe), **kwargs)
    return model


def add_moe(model: nn.Module, moe: MoE = "topk") -> nn.Module:
    """Put MoE layers into a timm model or transformers' `GPT2LMHeadModel`, in place, and return it; see `create_model`.

    For a trained model, ``moe={"gate": …, "experts": {"kind": "mlp", "hidden": "host"}, "init": "upcycle"}``
    starts every expert as the MLP it replaces.
    """
    with_moe: nn.Module = backbone_of_model(model).add_moe(model, parse_moe(moe))
    return with_moe


def load(path: str | Path, weights: Weights = "evaluated") -> nn.Module:
    """The model of a checkpoint, which says itself what it is; on the CPU, in evaluation mode.

    path: a file, a folder that `vmoe export` wrote, or ``hf-hub:OWNER/NAME``, maybe with ``@REVISION``.
    weights: ``evaluated``, those its run evaluated; or the raw ones, or their moving average.

    Raises `FileNotFoundError`, or `ValueError`: damaged, no checkpoint of vmoe, weights that do not fit the model it
    describes, or no moving average where one is asked for.
    """
    return build_stored(read_checkpoint(path), str(path), weights)


def build_stored(checkpoint: dict[str, Any], path: str, weights: Weights = "evaluated") -> nn.Module:
    """`load` for a checkpoint that has been read; path: what it is called in errors."""
    chosen = {
        "evaluated": counting_weights(checkpoint),
        "raw": checkpoint["weights"],
        "ema": checkpoint["ema"],
    }[weights]
    if chosen is None:
        raise ValueError(f"{path}: holds no moving average of the weights; allowed: raw, evaluated")
    described = checkpoint["model"]
    check_arguments(described["kwargs"], f"{path}: model.kwargs")
    try:
        model = _build(described["name"], parse_moe(described["moe"]), described["kwargs"], chosen)
    except ValueError as error:
        raise ValueError(f"{path}: the model that it describes cannot be built: {error}") from error
    return load_weights(model, chosen, path).eval()


def _build(name: str, moe: MoESpec, kwargs: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The model, unless it is larger than the weights that are to go into it."""

    def build() -> nn.Module:
        model: nn.Module = backbone_of_name(name).create_model(name, moe, weights_follow=True, **kwargs)
        return model

    numbers = sum(tensor.numel() for tensor in weights.values())
    check_size(
        build,
        MOST_TIMES * numbers + BUFFERS,
        lambda: ValueError(
            f"it is far larger than the weights there are for it, {numbers:,} numbers; allowed: as many"
        ),
    )
    return build()


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: str) -> nn.Module:
    """The model with all these weights, in place. Raises `ValueError` if they do not fit; path: whose they are."""
    if problems := [*_misfits(model.state_dict(), weights)]:
        more = f" and {len(problems) - MOST_MISFITS:,} more" if len(problems) > MOST_MISFITS else ""
        listed = "; ".join(problems[:MOST_MISFITS])
        raise ValueError(f"{path}: its weights do not fit the model it describes: {listed}{more}")
    model.load_state_dict(weights)
    return model


def _misfits(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> Iterator[str]:
    """Of each weight, why it cannot be loaded."""
    for name, tensor in expected.items():
        found = weights.get(name)
        if found is None:
            yield f"{name} is missing"
        elif found.shape != tensor.shape:
            yield f"{name} has shape {tuple(found.shape)}; allowed: {tuple(tensor.shape)}"
        elif found.is_floating_point() != tensor.is_floating_point() or found.is_complex():
            yield f"{name} is {found.dtype}; allowed: {tensor.dtype}"
        elif not found.isfinite().all():
            yield f"{name} holds numbers that are not finite: the training that left them had diverged"
    for name in weights:
        if name not in expected:
            yield f"{name[:100]} is none of the model's"
