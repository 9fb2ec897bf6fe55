"""Soft MoE: experts serve slots that mix all tokens of a sequence.

Shapes: T tokens, B sequences, N tokens a sequence, D width, E experts, S slots an expert.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..routing import Routing, route_slots
from ..spec import Soft
from .base import Gate, at_least_float32

EPSILON = 1e-6  # least length that a vector is divided by, as the authors'


class SoftGate(Gate):
    """Logits ``x Φ``, softmaxed over tokens to fill slots and over slots to combine (arXiv 2308.00951, algorithm 1).

    With `normalize` both are brought to unit length and multiplied by a learned scale that starts at 1 (algorithm 2).
    Φ (E·S, D) starts from N(0, 1/√D).
    """

    spec: Soft

    def __init__(self, dim: int, num_experts: int, slots: int, spec: Soft):
        super().__init__()
        self.spec = spec
        self.num_experts = num_experts
        self.weight = nn.Parameter(torch.empty(num_experts * slots, dim))
        nn.init.normal_(self.weight, std=dim**-0.5)
        self.scale = nn.Parameter(torch.ones(())) if spec.normalize else None

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        with torch.autocast(x_TD.device.type, enabled=False):
            x_TD = at_least_float32(x_TD)
            slots_SD = self.weight.to(x_TD.dtype)
            if self.scale is not None:
                x_TD = normalize(x_TD, dim=-1, eps=EPSILON)
                slots_SD = normalize(slots_SD, dim=-1, eps=EPSILON) * self.scale.to(x_TD.dtype)
            logits_TS = nn.functional.linear(x_TD, slots_SD)
        sizes = (shape[0], shape[1:].numel(), self.num_experts, len(self.weight) // self.num_experts)
        return route_slots(logits_TS.view(sizes), shape)

    @property
    def flops_per_token(self) -> int:
        """Of the logits, of filling the slots, and of combining their results."""
        return 3 * 2 * self.weight.numel()
