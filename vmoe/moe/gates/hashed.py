"""Random routing that does not look at the token: uniform draws, or a hash of its position.

Shapes: T tokens, N tokens a sequence, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..routing import Routing, route_top_k
from ..spec import Random
from .base import Gate


class HashGate(Gate):
    """Experts by a hash of the token's position in its sequence, equal weights (Hash Layers, arXiv 2106.04426).

    With ``source: uniform`` the scores are drawn afresh in every training forward, and hashed in evaluation, so
    that a token's experts depend neither on the batch nor on the process it is evaluated in.
    """

    spec: Random
    salt: Tensor

    def __init__(self, num_experts: int, spec: Random):
        super().__init__()
        self.spec = spec
        self.num_experts = num_experts
        self.register_buffer("salt", torch.randint(2**62, ()))  # another hash in every layer

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        if self.spec.source == "uniform" and self.training:
            scores_TE = torch.rand(len(x_TD), self.num_experts, device=x_TD.device)
        else:
            positions_N = torch.arange(shape[1:].numel(), device=x_TD.device)
            scores_NE = hashed_uniform(positions_N, self.num_experts, self.salt)
            scores_TE = scores_NE.repeat(shape[0], 1)
        if x_TD.dtype == torch.float64:
            scores_TE = scores_TE.double()
        return route_top_k(scores_TE, self.spec.k, shape, weights="equal")


def hashed_uniform(keys_N: Tensor, num_experts: int, salt: Tensor) -> Tensor:
    """(N, E) numbers in [0, 1), a fixed function of key, expert and salt (the finaliser of MurmurHash3)."""
    experts_E = torch.arange(num_experts, device=keys_N.device)
    bits_NE = (keys_N[:, None] * num_experts + experts_E) ^ salt
    for factor in (-49064778989728563, -4265267296055464877):
        bits_NE = (bits_NE ^ ((bits_NE >> 33) & (2**31 - 1))) * factor
    return ((bits_NE >> 40) & (2**24 - 1)).float() / 2**24
