"""What users call from Python: models by name, models from checkpoints, MoE layers in a model of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from .backbones import backbone_of_model, backbone_of_name
from .config import parse_moe
from .moe import MoESpec
from .train.checkpoint import counting_weights, read_checkpoint

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
    moe = parse_moe(described["moe"])
    create_model = backbone_of_name(described["name"]).create_model
    model = create_model(described["name"], moe, weights_follow=True, **described["kwargs"])
    return load_weights(model, chosen, path).eval()


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: str) -> nn.Module:
    """The model with all these weights, in place. Raises `ValueError` if they do not fit; path: whose they are."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit the model it describes: {error}") from None
    return model
