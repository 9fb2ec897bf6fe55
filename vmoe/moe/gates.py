"""Gates: from tokens to a Routing, one class a method.

Every gate is called as ``gate(x_TD, features_TER, shape)`` and returns a `Routing`. Scores are float32 whatever
the autocast type, since a rounded score routes a token elsewhere.

Shapes: T tokens, D width, E experts, R rank of the experts' own features, B batch, N tokens an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .routing import Routing, route_threshold, route_top_k
from .spec import FixedK, GateSpec, Random, RoutingFree, SelfRouting, TopK, require

ROUTER_STD = 0.02  # of learned and of frozen random routers alike


class Gate(nn.Module):
    """What the layer asks of a gate. spec: what it was built from."""

    spec: GateSpec

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        raise NotImplementedError

    @property
    def flops_per_token(self) -> int:
        """FLOPs of scoring one token, 2 a multiply-add; norms and softmax are not counted."""
        return 0


class LinearScores(nn.Module):
    """``x W`` in float32; W (E, D) is the module's weight."""

    def __init__(self, dim: int, num_experts: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, dim))
        nn.init.normal_(self.weight, std=ROUTER_STD)

    def forward(self, x_TD: Tensor) -> Tensor:
        with torch.autocast(x_TD.device.type, enabled=False):
            return nn.functional.linear(x_TD.float(), self.weight.float())


def softmax_over(spec: FixedK) -> str:
    return "selected" if spec.renormalize else "all"


class LinearGate(Gate):
    """The k largest of ``x W``, weighed by a softmax."""

    spec: TopK | Random

    def __init__(self, dim: int, num_experts: int, spec: TopK | Random):
        super().__init__()
        self.spec = spec
        self.router = LinearScores(dim, num_experts)

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        return route_top_k(self.router(x_TD), self.spec.k, shape, weights=softmax_over(self.spec))

    @property
    def flops_per_token(self) -> int:
        return 2 * self.router.weight.numel()


class TopKGate(LinearGate):
    """Learned router: W is trained (arXiv 1701.06538, eq. 3–5, without noise)."""


class FixedRandomGate(LinearGate):
    """A router that never learns: W ~ N(0, 0.02) is frozen, and kept in the checkpoint."""

    def __init__(self, dim: int, num_experts: int, spec: Random):
        super().__init__(dim, num_experts, spec)
        self.router.requires_grad_(False)


class SelfGate(Gate):
    """Self-Routing: the scores are E coordinates of x itself (arXiv 2604.00421). Nothing is learned or added."""

    spec: SelfRouting

    def __init__(self, dim: int, num_experts: int, spec: SelfRouting):
        super().__init__()
        require(num_experts <= dim, "num_experts", num_experts, f"at most the width, {dim}, for the self gate")
        self.offset = dim - num_experts if spec.offset is None else spec.offset
        last = dim - num_experts
        require(self.offset <= last, "gate.offset", self.offset, f"0 to {last} (width {dim} − num_experts)")
        self.num_experts = num_experts
        self.spec = spec

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        scores_TE = x_TD[:, self.offset : self.offset + self.num_experts].float()
        return route_top_k(scores_TE, self.spec.k, shape, weights=softmax_over(self.spec))


class HashGate(Gate):
    """Experts by a hash of the token's position in its image, equal weights (Hash Layers, arXiv 2106.04426).

    With ``source: uniform`` the scores are drawn afresh in every training forward, and hashed in evaluation, so
    that a token's experts depend neither on the batch nor on the process it is evaluated in.
    """

    spec: Random
    salt: Tensor

    def __init__(self, dim: int, num_experts: int, spec: Random):
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
        return route_top_k(scores_TE, self.spec.k, shape, weights="equal")


NORM_ORDERS = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}


class RoutingFreeGate(Gate):
    """Routing-Free MoE: ``s_e = scale_e · ‖x A_e‖ − bias_e``, active where ``s_e ≥ θ/τ`` (arXiv 2604.00801).

    A_e are the experts' own low-rank weights, so the gate itself learns one scale and one bias an expert.
    """

    spec: RoutingFree

    def __init__(self, dim: int, num_experts: int, spec: RoutingFree):
        super().__init__()
        self.spec = spec
        self.scale = nn.Parameter(torch.ones(num_experts))
        self.bias = nn.Parameter(torch.zeros(num_experts))

    @property
    def threshold(self) -> float:
        return self.spec.threshold / self.spec.temperature

    def norms(self, features_TER: Tensor) -> Tensor:
        return torch.linalg.vector_norm(features_TER.float(), ord=NORM_ORDERS[self.spec.norm], dim=-1)

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        assert features_TER is not None, "the layer passes the experts' features"
        scores_TE = self.scale.float() * self.norms(features_TER) - self.bias.float()
        return route_threshold(scores_TE, self.threshold, shape)

    @torch.no_grad()
    def calibrate(self, down_ERD: Tensor) -> None:
        """Set the scales so that nearly every pair is active at the start, whatever D, R and initialisation.

        For x of unit mean square (the output of a normalisation layer) the R features of expert e are near
        N(0, ‖A_e‖²_F / R). The expected score becomes `spec.start` thresholds, or as many more as it takes for
        95 % of such scores to pass, which matters for small ranks only. The paper leaves this to chance: its
        linear layers' default initialisation happens to start near density 1.
        """
        rank = down_ERD.shape[1]
        deviation_E = down_ERD.float().flatten(1).norm(dim=1) / rank**0.5
        draws = torch.randn(4096, 1, rank, generator=torch.Generator().manual_seed(0), device="cpu")
        norms = self.norms(draws).flatten()
        multiple = max(self.spec.start / float(norms.mean()), 1 / float(norms.quantile(0.05)))
        self.scale.copy_(multiple * self.threshold / deviation_E)
        self.bias.zero_()


def hashed_uniform(keys_N: Tensor, num_experts: int, salt: Tensor) -> Tensor:
    """(N, E) numbers in [0, 1), a fixed function of key, expert and salt (the finaliser of MurmurHash3)."""
    experts_E = torch.arange(num_experts, device=keys_N.device)
    bits_NE = (keys_N[:, None] * num_experts + experts_E) ^ salt
    for factor in (-49064778989728563, -4265267296055464877):
        bits_NE = (bits_NE ^ ((bits_NE >> 33) & (2**31 - 1))) * factor
    return ((bits_NE >> 40) & (2**24 - 1)).float() / 2**24
