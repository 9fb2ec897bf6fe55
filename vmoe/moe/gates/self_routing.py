"""Self-Routing: the scores are coordinates of the token itself.

Shapes: T tokens, D width, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..routing import Routing, route_top_k
from ..spec import SelfRouting, require
from .base import Gate, at_least_float32, softmax_over


class SelfGate(Gate):
    """Self-Routing: the scores are E coordinates of x (arXiv 2604.00421). Nothing is learned or added.

    layer: the number of the MoE layer among the model's, for offsets given layer by layer.
    """

    spec: SelfRouting

    def __init__(self, dim: int, num_experts: int, spec: SelfRouting, layer: int):
        super().__init__()
        require(num_experts <= dim, "num_experts", num_experts, f"at most the width, {dim}, for the self gate")
        last = dim - num_experts
        chosen = spec.offset[layer] if isinstance(spec.offset, tuple) else spec.offset
        self.offset = last if chosen is None else chosen
        require(self.offset <= last, "gate.offset", self.offset, f"0 to {last} (width {dim} − num_experts)")
        self.num_experts = num_experts
        self.spec = spec

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        scores_TE = at_least_float32(x_TD[:, self.offset : self.offset + self.num_experts])
        return route_top_k(scores_TE, self.spec.k, shape, weights=softmax_over(self.spec))
