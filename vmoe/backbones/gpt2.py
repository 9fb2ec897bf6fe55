"""transformers' GPT-2: MoE layers in place of the MLPs of a `GPT2LMHeadModel`.

The MoE layer takes the MLP's own name (`transformer.h.N.mlp`), so generation with and without a cache, gradient
checkpointing and parameter groups go on as before. Gates that look past a token are refused, with the reason.

transformers is imported when a model is built, and by nothing before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from vmoe.moe import DenseMlp, MoESpec
from vmoe.moe.activations import identify_activation
from vmoe.tensors import write_weights

from .host import HostBlock, put_moe

SIZES = {
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12},
    "gpt2-medium": {"n_layer": 24, "n_embd": 1024, "n_head": 16},
    "gpt2-large": {"n_layer": 36, "n_embd": 1280, "n_head": 20},
    "gpt2-xl": {"n_layer": 48, "n_embd": 1600, "n_head": 25},
}
# torch's own modules for activations that transformers has classes of its own for, and some as eight operators.
OWN_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "relu": nn.ReLU,
}


def create_model(name: str, moe: MoESpec, *, weights_follow: bool = False, **kwargs: Any) -> nn.Module:
    """`create_host(name, **kwargs)` with MoE layers put in.

    Raises `ImportError` and `ValueError`: `create_host` or `add_moe` refuses.
    """
    return add_moe(create_host(name, **kwargs), moe, weights_follow=weights_follow)


def create_host(
    name: str,
    *,
    pretrained: bool = False,
    vocab_size: int = 50257,
    block_size: int = 1024,
    bias: bool = True,
    dropout: float = 0.0,
    **kwargs: Any,
) -> nn.Module:
    """A dense `GPT2LMHeadModel` of one of the four published sizes, from torch's global generator.

    pretrained: with OpenAI's weights. Then `vocab_size` may add rows to the embedding, and `block_size` cut positions.
    block_size: the most tokens of a sequence, `n_positions`.
    bias: of linear layers and layer norms; without them it is nanoGPT's model.
    dropout: of embeddings, attention and residual branches.
    kwargs: further arguments of `transformers.GPT2Config`, which override the size's. The activation is by default
    the same as the config's in one operator. The ids of the first and the last token are by default 50256, or the
    vocabulary's last where that is smaller.

    Raises `ImportError` where transformers is missing, and `ValueError`: another name, an argument that is unknown or
    set by another, sizes that do not go together, or pretrained weights that cannot be had or be given that shape.
    """
    if name not in SIZES:
        raise ValueError(f"model.name is {name!r}; allowed: {', '.join(SIZES)}")
    try:
        from . import gpt2_host
    except ImportError as error:
        raise ImportError(
            f"model.name is {name!r}, and transformers cannot be imported ({error}): pip install 'vmoe[lm]'"
        ) from error
    sizes = SIZES[name]
    config = gpt2_host.configure(sizes, vocab_size=vocab_size, block_size=block_size, dropout=dropout, arguments=kwargs)
    host: nn.Module = (
        gpt2_host.load(name, sizes, config, bias=bias) if pretrained else gpt2_host.build(config, bias=bias)
    )
    return host


def architecture(name: str) -> str:
    """The name of the model whatever its weights: there are no tags."""
    return name


def add_moe(model: nn.Module, spec: MoESpec, *, weights_follow: bool = False) -> nn.Module:
    """Put MoE layers into a dense `GPT2LMHeadModel`, in place, and return it; see `vmoe.backbones.host.put_moe`.

    Raises `ValueError` for a gate too that looks past a token.
    """
    spec.check_causal()
    return put_moe(model, spec, host_blocks, count_tokens, weights_follow=weights_follow)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model, with MoE layers in or without."""
    host: Any = model
    return list(host.transformer.h)


def host_blocks(model: nn.Module) -> list[HostBlock]:
    """The blocks whose MLP can be replaced, in order. Raises `ValueError` with the reason if there are none."""
    from transformers import GPT2LMHeadModel

    if not isinstance(model, GPT2LMHeadModel):
        raise ValueError(f"{type(model).__name__} is no GPT-2. Allowed: transformers' GPT2LMHeadModel")
    host: Any = model
    return [describe_block(f"transformer.h.{number}.mlp", block) for number, block in enumerate(host.transformer.h)]


def describe_block(name: str, block: Any) -> HostBlock:
    """A block by its MLP's name. Raises `ValueError` where its MLP is another than GPT-2's own."""
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
    from transformers.pytorch_utils import Conv1D

    mlp = block.mlp
    if type(mlp) is not GPT2MLP or not all(isinstance(layer, Conv1D) for layer in (mlp.c_fc, mlp.c_proj)):
        raise ValueError(
            f"GPT2LMHeadModel cannot take MoE layers: its {name} is a {type(mlp).__name__}. Allowed: transformers'"
            " GPT2MLP of Conv1D layers"
        )
    known = identify_activation(mlp.act)
    return HostBlock(
        name=name,
        block=block,
        mlp=mlp,
        dense=DenseMlp(as_linear(mlp.c_fc), as_linear(mlp.c_proj)),
        activation=OWN_ACTIVATIONS[known]() if known is not None and known in OWN_ACTIVATIONS else mlp.act,
        dropout_hidden=0.0,
        dropout_out=mlp.dropout.p,
        norm=norm_before(block),
    )


def as_linear(conv: Any) -> nn.Linear:
    """A Conv1D, whose weight is (in, out), as a linear layer on the same memory; no part of the model."""
    linear = nn.Linear(conv.nx, conv.nf, bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().T, requires_grad=False)
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return linear


def norm_before(block: Any) -> nn.Module | None:
    """The norm whose output is the block's MLP's input."""
    norm: nn.Module = block.ln_2
    return norm


def count_tokens(model: nn.Module, blocks: list[HostBlock]) -> list[int]:
    """Tokens of a sequence at each of the MLPs: as many as the model takes."""
    host: Any = model
    return [host.config.n_positions] * len(blocks)


def enable_checkpointing(model: nn.Module) -> None:
    """Activation checkpointing, by transformers' own method. It is not reentrant, or balance losses had no gradient."""
    host: Any = model
    # Early releases of transformers 5 know the old name alone, later ones warn of it.
    enable = getattr(host, "activation_checkpointing_enable", host.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def save_folder(model: nn.Module, folder: Path, about: Mapping[str, Any]) -> None:
    """Write model.safetensors and config.json, which is the `GPT2Config` of transformers.

    about: `model_config`, further entries of config.json.
    """
    host: Any = model
    described = {**json.loads(host.config.to_json_string(use_diff=False)), **about["model_config"]}
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    write_weights(model.state_dict(), folder / "model.safetensors")


def push_folder(model: nn.Module, folder: Path, about: Mapping[str, Any], repository: str, *, private: bool) -> None:
    """Put what `save_folder` wrote into the folder onto the Hugging Face hub, where the repository is there already."""
    from huggingface_hub import HfApi

    names = ["config.json", "model.safetensors"]
    HfApi().upload_folder(repo_id=repository, folder_path=folder, allow_patterns=names, commit_message="Add model")
