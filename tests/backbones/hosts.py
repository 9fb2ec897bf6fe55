"""Small hosts for the tests of `vmoe.backbones`, and a step of training."""

from __future__ import annotations

from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

import vmoe
from vmoe.backbones import gpt2
from vmoe.moe import (
    AutonomyOfExperts,
    ExpertChoice,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
    balance_for,
)

torch.set_num_threads(1)  # tensors this small only get slower on several

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}
TINY_GPT2: dict[str, Any] = {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 97, "block_size": 16}


GATES = {
    "topk": TopK(),
    "topk, bias and jitter": TopK(bias_rate=0.01, jitter=0.1),
    "self": SelfRouting(),
    "self, residual": SelfRouting(input="residual"),
    "fixed": Random(source="fixed"),
    "uniform": Random(source="uniform"),
    "hash": Random(source="hash"),
    "aoe": AutonomyOfExperts(),
    "relu": Relu(),
    "routing_free": RoutingFree(),
    "expert_choice": ExpertChoice(),
    "soft": Soft(),
}
LOOK_PAST_A_TOKEN = ("uniform", "hash", "expert_choice", "soft")
CAUSAL_GATES = {name: gate for name, gate in GATES.items() if name not in LOOK_PAST_A_TOKEN}


def tiny_vit(seed: int | None = 0, **kwargs: Any) -> nn.Module:
    """A dense ViT of 4 blocks, 24 wide, for 32 × 32 images and 5 classes.

    seed: None takes the generator as it stands.
    """
    if seed is not None:
        torch.manual_seed(seed)
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **TINY, **kwargs)


def tiny_gpt2(seed: int | None = 0, **kwargs: Any) -> nn.Module:
    """A dense GPT-2 of 2 blocks, 32 wide, for up to 16 tokens of 97. seed: as in `tiny_vit`."""
    if seed is not None:
        torch.manual_seed(seed)
    return gpt2.create_host("gpt2", **TINY_GPT2 | kwargs)


class Step(NamedTuple):
    """What a step of training comes to. counts: of the balance's buffers, before it steps."""

    loss: Tensor
    gradients: dict[str, Tensor]
    counts: dict[str, Tensor]


def train_step(model: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
    """Forward and backward of the loss with its balance term; timm's models give logits, transformers' hold them."""
    balance: Any = balance_for(model)
    if hasattr(balance, "coefficient"):
        balance.coefficient.fill_(0.3)
    torch.manual_seed(0)
    model.train().zero_grad()
    with vmoe.record(model) as routings:
        output = model(inputs)
        logits = output if isinstance(output, Tensor) else output.logits
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten()) + balance(routings)
        loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    counts = {name: buffer.clone() for name, buffer in balance.named_buffers()}
    return Step(loss.detach(), gradients, counts)
