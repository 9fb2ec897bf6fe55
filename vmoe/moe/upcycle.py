"""Upcycling: experts made of a trained dense MLP (sparse upcycling, arXiv 2212.05055).

Expert e takes F of the MLP's H hidden units, cyclically from unit e·F on: all of them, which is a copy, where F = H;
a part of its own where E·F = H, so that the parts together are the MLP. Second-layer weights are scaled so that the
sum over a token's experts, weighted as at the start, is the dense output where the parts it gets are typical ones, and
exactly that for copies whose weights sum to 1.

GLU experts have a product where an MLP has an activation. SiLU is one, ``silu(h) = sigmoid(h) · h``, and GELU nearly,
``gelu(h) ≈ sigmoid(1.702 h) · h`` (Hendrycks and Gimpel, arXiv 1606.08415), so a GLU expert with a sigmoid, the MLP's
first weight in both its projections, and no bias stands for it. A low-rank gate projection is the best of its rank
(SVD), ``W_gate ≈ U_R (S_R V_Rᵀ)``: A is the second factor, whose norm is about that of the whole projection.

Shapes: D width, H the MLP's hidden width, E experts, F their hidden width, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .experts import Experts, GluExperts, LowRankGluExperts, MlpExperts

# α of act(h) ≈ sigmoid(α h) · h, by the class's name: timm has classes of its own beside torch's.
SLOPES = {"SiLU": 1.0, "Swish": 1.0, "GELU": 1.702, "GELUTanh": 1.702, "QuickGELU": 1.702}


@dataclass(frozen=True)
class DenseMlp:
    """The MLP ``fc2(act(fc1 x))`` that experts are made of."""

    fc1: nn.Linear
    fc2: nn.Linear

    @property
    def hidden(self) -> int:
        return self.fc1.out_features


@torch.no_grad()
def upcycle(experts: Experts, dense: DenseMlp, *, gate_slope: float, total_weight: float, noise: float) -> None:
    """Make experts of a dense MLP, in place.

    gate_slope: the factor α of a GLU's gate projection. total_weight: what the weights of a token's experts are
    expected to sum to, shared ones with weight 1 included. noise: deviation of the Gaussian noise that is added to
    every weight, relative to that of the stack of weights it stands in.

    Raises `ValueError` if the experts are wider than the MLP.
    """
    hidden = experts.layers()[-1].weight.shape[2]
    if hidden > dense.hidden:
        raise ValueError(f"experts are {hidden} wide; allowed with init: upcycle: at most the host's {dense.hidden}")
    units_EF = torch.arange(experts.num_experts * hidden, device=dense.fc1.weight.device) % dense.hidden
    units_EF = units_EF.view(experts.num_experts, hidden)
    first_EFD = dense.fc1.weight[units_EF]
    last_EDF = dense.fc2.weight.T[units_EF].mT * (dense.hidden / (hidden * total_weight))
    if isinstance(experts, MlpExperts):
        experts.fc1.weight.copy_(first_EFD)
        experts.fc2.weight.copy_(last_EDF)
        if experts.fc1.bias is not None and experts.fc2.bias is not None:
            experts.fc1.bias.copy_(dense.fc1.bias[units_EF])
            experts.fc2.bias.copy_((dense.fc2.bias / total_weight).expand_as(experts.fc2.bias))
    elif isinstance(experts, GluExperts):
        experts.gate.weight.copy_(gate_slope * first_EFD)
        experts.up.weight.copy_(first_EFD)
        experts.down.weight.copy_(last_EDF)
    elif isinstance(experts, LowRankGluExperts):
        down_ERD, up_EFR = factorise(gate_slope * first_EFD, experts.gate_down.weight.shape[1])
        experts.gate_down.weight.copy_(down_ERD)
        experts.gate_up.weight.copy_(up_EFR)
        experts.up.weight.copy_(first_EFD)
        experts.down.weight.copy_(last_EDF)
    if noise:
        for layer in [*experts.feature_layers(), *experts.layers()]:
            layer.weight.add_(torch.randn_like(layer.weight), alpha=noise * float(layer.weight.std()))


def factorise(weight_EFD: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (E, R, D) and B (E, F, R) whose products B A are nearest to the weights; rows past their rank are 0."""
    u, s, vt = torch.linalg.svd(weight_EFD.float(), full_matrices=False)
    kept = min(rank, s.shape[1])
    down_ERD = weight_EFD.new_zeros(len(weight_EFD), rank, weight_EFD.shape[2])
    up_EFR = weight_EFD.new_zeros(len(weight_EFD), weight_EFD.shape[1], rank)
    down_ERD[:, :kept] = (s[:, :kept, None] * vt[:, :kept]).to(weight_EFD.dtype)
    up_EFR[:, :, :kept] = u[:, :, :kept].to(weight_EFD.dtype)
    return down_ERD, up_EFR


@torch.no_grad()
def factorisation_error(experts: LowRankGluExperts) -> float:
    """``‖W − B A‖ / ‖W‖`` over all experts, W being the up projection, of which upcycling made A and B.

    The slope of the gate cancels by scaling B A to fit W best.
    """
    product = experts.gate_up.weight.float() @ experts.gate_down.weight.float()
    whole = experts.up.weight.float()
    scale = (product * whole).sum() / product.square().sum()
    return float((whole - scale * product).norm() / whole.norm())
