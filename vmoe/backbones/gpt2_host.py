"""transformers' GPT2LMHeadModel as a host: its config, its weights, and nanoGPT's variant without biases."""

from __future__ import annotations

import copy
import difflib
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file

PUBLISHED_VOCABULARY, PUBLISHED_POSITIONS = 50257, 1024
END_OF_TEXT = 50256
ACTIVATION = "gelu_pytorch_tanh"  # the config's default, gelu_new, in one operator
# Arguments of GPT2Config that shape the published weights, and others that a host may be given.
SHAPES = ("n_layer", "n_embd", "n_head", "n_inner", "tie_word_embeddings")
ARGUMENTS = (
    *SHAPES,
    *("activation_function", "layer_norm_epsilon", "initializer_range", "attn_implementation", "use_cache"),
    *("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flex_attention")
SET_BY = {
    "n_positions": "block_size",
    "max_position_embeddings": "block_size",
    "resid_pdrop": "dropout",
    "embd_pdrop": "dropout",
    "attn_pdrop": "dropout",
}


class Conv1DWithoutBias(Conv1D):
    """transformers' Conv1D, weight (in, out), but for the bias, which its own forward needs."""

    def __init__(self, conv: Conv1D):
        nn.Module.__init__(self)  # Conv1D's own would draw weights
        self.nx, self.nf = conv.weight.shape
        self.weight = conv.weight
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def configure(
    sizes: dict[str, int], *, vocab_size: int, block_size: int, dropout: float, arguments: dict[str, Any]
) -> GPT2Config:
    """The config of a host. Raises `ValueError` for arguments that are unknown or do not go together.

    sizes: those that the model's name stands for. arguments: of GPT2Config, which override them.
    """
    for name in arguments:
        check_name(name)
    end = min(vocab_size - 1, END_OF_TEXT)
    chosen = {"activation_function": ACTIVATION, "bos_token_id": end, "eos_token_id": end, **sizes, **arguments}
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    try:
        config = GPT2Config(vocab_size=vocab_size, n_positions=block_size, **rates, **chosen)
    except StrictDataclassError as error:
        raise ValueError(f"model.kwargs is {arguments}: {' '.join(str(error).split())}") from None
    check_values(config)
    return config


def check_name(name: str) -> None:
    """Raise `ValueError` for a keyword that `create_host` does not take."""
    if name in SET_BY:
        raise ValueError(f"model.kwargs holds {name}; it is set by {SET_BY[name]}")
    if name == "add_cross_attention":
        raise ValueError("model.kwargs holds add_cross_attention; allowed: GPT-2 without, which has one input")
    if name not in ARGUMENTS:
        known = ["vocab_size", "block_size", "bias", "dropout", *ARGUMENTS]
        near = GPT2Config.attribute_map.get(name) or difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        raise ValueError(f"model.kwargs holds {name}, which GPT-2 does not take; did you mean {near}")


def check_values(config: GPT2Config) -> None:
    """Raise `ValueError` for sizes that cannot be or do not go together."""
    sizes = {"vocab_size": config.vocab_size, "block_size": config.n_positions, "n_layer": config.n_layer}
    sizes |= {"n_embd": config.n_embd, "n_head": config.n_head, "n_inner": config.n_inner}
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{name} is {size}; allowed: 1 or more")
    if config.n_embd % config.n_head:
        raise ValueError(f"n_embd is {config.n_embd}; allowed: a multiple of n_head, which is {config.n_head}")
    if not 0 <= config.resid_pdrop < 1:
        raise ValueError(f"dropout is {config.resid_pdrop}; allowed: 0 or more, less than 1")
    if config._attn_implementation not in ATTENTIONS:  # others are code that transformers would get from the hub
        raise ValueError(
            f"attn_implementation is {config._attn_implementation!r}; allowed: {', '.join(ATTENTIONS[1:])}"
        )
    if config.activation_function not in ACT2FN:
        raise ValueError(f"activation_function is {config.activation_function!r}; allowed: {', '.join(ACT2FN)}")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(config, name)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(0 <= number < config.vocab_size for number in ids):
            raise ValueError(f"{name} is {value}; allowed: 0 to {config.vocab_size - 1}, within vocab_size")


def build(config: GPT2Config, *, bias: bool) -> GPT2LMHeadModel:
    """A model with weights drawn as transformers draws them."""
    model = GPT2LMHeadModel(config)
    if not bias:
        drop_biases(model)
    return model


def drop_biases(model: nn.Module) -> None:
    """Leave linear layers and layer norms without biases, in place; weights stay as they are."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv1D):
                setattr(parent, name, Conv1DWithoutBias(child))
            elif isinstance(child, nn.LayerNorm):
                child.register_parameter("bias", None)


def load(name: str, sizes: dict[str, int], config: GPT2Config, *, bias: bool) -> GPT2LMHeadModel:
    """The published weights of that name, with more tokens or fewer positions where the config has them.

    sizes: those that the name stands for.

    Raises `ValueError`: the config has another shape than they can be given, or there are none to be had.
    """
    require_published_shape(name, sizes, config, bias=bias)
    published = copy.deepcopy(config)
    published.vocab_size, published.n_positions = PUBLISHED_VOCABULARY, PUBLISHED_POSITIONS
    try:
        cached_file(name, "model.safetensors")  # says at once what is wrong; from_pretrained tries other names first
        model = GPT2LMHeadModel.from_pretrained(name, config=published, dtype=torch.float32)
    except OSError as error:
        raise ValueError(
            f"the pretrained weights of {name!r} cannot be had: {str(error).splitlines()[0]} Allowed: a network, or"
            " weights that an earlier download left in the cache of the Hugging Face hub"
        ) from error
    if config.vocab_size > PUBLISHED_VOCABULARY:
        model.resize_token_embeddings(config.vocab_size, mean_resizing=False)
    positions = model.transformer.wpe.weight.detach()[: config.n_positions].clone()
    model.transformer.wpe = nn.Embedding.from_pretrained(positions, freeze=False)
    model.config.n_positions = config.n_positions
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, token, getattr(config, token))
    return model.train()  # as a model is that was not loaded


def require_published_shape(name: str, sizes: dict[str, int], config: GPT2Config, *, bias: bool) -> None:
    """Raise `ValueError` unless the published weights can be given the shape of the config."""
    where = f"model.pretrained is true for {name!r}"
    if not bias:
        raise ValueError(f"{where}, and bias is false; allowed: true")
    published = GPT2Config(**sizes)
    for key in SHAPES:
        if (value := getattr(config, key)) != (allowed := getattr(published, key)):
            raise ValueError(f"{where}, and {key} is {value}; allowed: {allowed}")
    if config.vocab_size < PUBLISHED_VOCABULARY:
        raise ValueError(f"{where}, and vocab_size is {config.vocab_size}; allowed: {PUBLISHED_VOCABULARY} or more")
    if config.n_positions > PUBLISHED_POSITIONS:
        raise ValueError(f"{where}, and block_size is {config.n_positions}; allowed: at most {PUBLISHED_POSITIONS}")
