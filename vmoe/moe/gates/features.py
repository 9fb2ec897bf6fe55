"""Gates without a router, in which experts score themselves by the norm of their own features of the token.

Shapes: T tokens, D width, E experts, R rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..routing import Routing, route_threshold, route_top_k
from ..spec import AutonomyOfExperts, RoutingFree
from .base import Gate, at_least_float32, softmax_over

NORM_ORDERS = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}


def feature_norms(features_TER: Tensor | None, norm: str) -> Tensor:
    """(T, E): the norm of each expert's features of each token, in float32 at least."""
    assert features_TER is not None, "the layer passes the experts' features"
    return torch.linalg.vector_norm(at_least_float32(features_TER), ord=NORM_ORDERS[norm], dim=-1)


class AutonomyOfExpertsGate(Gate):
    """Autonomy-of-Experts: the k largest of ``‖x A_e‖₂``, weighed by a softmax (arXiv 2501.13074, section 3)."""

    spec: AutonomyOfExperts
    scores_features = True

    def __init__(self, spec: AutonomyOfExperts):
        super().__init__()
        self.spec = spec

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        scores_TE = feature_norms(features_TER, "l2")
        return route_top_k(scores_TE, self.spec.k, shape, weights=softmax_over(self.spec))


class RoutingFreeGate(Gate):
    """Routing-Free MoE: ``s_e = scale_e · ‖x A_e‖ − bias_e``, active where ``s_e ≥ θ/τ`` (arXiv 2604.00801).

    A_e are the experts' own low-rank weights, so the gate itself learns one scale and one bias an expert.
    """

    spec: RoutingFree
    scores_features = True

    def __init__(self, num_experts: int, spec: RoutingFree):
        super().__init__()
        self.spec = spec
        self.scale = nn.Parameter(torch.ones(num_experts))
        self.bias = nn.Parameter(torch.zeros(num_experts))

    @property
    def threshold(self) -> float:
        return self.spec.threshold / self.spec.temperature

    def forward(self, x_TD: Tensor, features_TER: Tensor | None, shape: torch.Size) -> Routing:
        norms_TE = feature_norms(features_TER, self.spec.norm)
        scores_TE = self.scale.to(norms_TE.dtype) * norms_TE - self.bias.to(norms_TE.dtype)
        return route_threshold(scores_TE, self.threshold, shape)

    @torch.no_grad()
    def calibrate(self, down_ERD: Tensor, gain_D: Tensor | None = None, shift_D: Tensor | None = None) -> None:
        """Set the scales so that nearly every pair is active at the start, whatever D, R and initialisation.

        x is taken for the output of a normalisation layer, ``gain ⊙ n + shift`` with n of mean 0 and mean square 1 (1
        and 0 where they are not given), so the R features of expert e are near N(0, d_e²) with
        ``d_e² = (‖A_e diag(gain)‖²_F + ‖A_e shift‖²) / R``. The expected score becomes `spec.start` thresholds, or as
        many more as it takes for 95 % of such scores to pass, which matters for small ranks only. The paper leaves
        this to chance: its linear layers' default initialisation happens to start near density 1.
        """
        down_ERD = down_ERD.float()
        rank = down_ERD.shape[1]
        square_E = (down_ERD if gain_D is None else down_ERD * gain_D.float()).square().sum((1, 2))
        if shift_D is not None:
            square_E = square_E + (down_ERD @ shift_D.float()).square().sum(1)
        draws = torch.randn(4096, 1, rank, generator=torch.Generator().manual_seed(0), device="cpu")
        multiple = self.multiple(feature_norms(draws, self.spec.norm).flatten())
        self.scale.copy_(multiple * self.threshold / (square_E / rank).sqrt())
        self.bias.zero_()

    @torch.no_grad()
    def calibrate_on(self, features_TER: Tensor) -> None:
        """The same from features of typical tokens, for experts whose features are not alike, such as upcycled ones."""
        self.scale.copy_(self.multiple(feature_norms(features_TER, self.spec.norm)) * self.threshold)
        self.bias.zero_()

    def multiple(self, norms: Tensor) -> Tensor:
        """The factor by which norms (draws, …) come to `spec.start` in the mean, or 95 % of them to 1 if it is more."""
        return torch.maximum(self.spec.start / norms.mean(0), 1 / norms.quantile(0.05, dim=0))
