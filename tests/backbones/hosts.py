"""Small timm hosts for the tests of `vmoe.backbones`."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from vmoe.moe import AutonomyOfExperts, ExpertChoice, Random, Relu, RoutingFree, SelfRouting, Soft, TopK

torch.set_num_threads(1)  # tensors this small only get slower on several

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}


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


def tiny_vit(seed: int | None = 0, **kwargs: Any) -> nn.Module:
    """A dense ViT of 4 blocks, 24 wide, for 32 × 32 images and 5 classes.

    seed: None takes the generator as it stands.
    """
    if seed is not None:
        torch.manual_seed(seed)
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **TINY, **kwargs)
