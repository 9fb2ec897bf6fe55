"""Upcycling: experts made of a trained dense MLP (sparse upcycling, arXiv 2212.05055).

Expert e takes F of the MLP's H hidden units, cyclically from unit e·F on: all of them, which is a copy, where F = H;
a part of its own where E·F = H, so that the parts together are the MLP. Shared experts go on where the routed ones
end. Second-layer weights are scaled by H/F, so that each expert stands for the whole MLP, and divided by what the
weights of a token's experts sum to at the start, which is measured (`expected_weight`). For copies whose weights sum
to 1 the layer's output is then exactly the dense one; otherwise it is so in the mean, as far as the parts that a token
gets are typical of all.

GLU experts have a product where an MLP has an activation. SiLU is one, ``silu(h) = sigmoid(h) · h``, and GELU nearly,
``gelu(h) ≈ sigmoid(1.702 h) · h`` (Hendrycks and Gimpel, arXiv 1606.08415), so a GLU expert with a sigmoid, the MLP's
first weight in both its projections, and no bias stands for it; the MLP's biases are lost. A low-rank gate projection
is the best of its rank (SVD), ``W_gate ≈ U_R (S_R V_Rᵀ)``: A is the second factor, whose norm is about that of the
whole projection.

Shapes: B sequences, N tokens a sequence, D width, H the MLP's hidden width, E experts, F their hidden width, R rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .experts import Experts, GluExperts, LowRankGluExperts, MlpExperts
from .gates import Gate
from .mode import evaluating

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


def hidden_width(experts: Experts) -> int:
    """F of a stack of experts."""
    return experts.layers()[-1].weight.shape[2]


def chosen_units(experts: Experts, dense: DenseMlp, first_unit: int = 0) -> Tensor:
    """(E, F): the numbers of the MLP's hidden units that each expert is made of."""
    hidden = hidden_width(experts)
    units = torch.arange(experts.num_experts * hidden, device=dense.fc1.weight.device) + first_unit
    return (units % dense.hidden).view(experts.num_experts, hidden)


def distinct_experts(experts: Experts, dense: DenseMlp) -> int:
    """How many of the experts are made of different units: from e = H / gcd(H, F) on, the sets of units recur."""
    return min(experts.num_experts, dense.hidden // math.gcd(dense.hidden, hidden_width(experts)))


@torch.no_grad()
def upcycle(
    experts: Experts, dense: DenseMlp, *, gate_slope: float = 1.0, first_unit: int = 0, noise: float = 0.0
) -> None:
    """Make experts of a dense MLP, in place, each standing for the whole of it.

    gate_slope: the factor α of a GLU's gate projection. first_unit: that the first expert begins with. noise: deviation
    of the Gaussian noise that is added to every weight, relative to that of the stack of weights it stands in.

    Raises `ValueError` if the experts are wider than the MLP.
    """
    hidden = hidden_width(experts)
    if hidden > dense.hidden:
        raise ValueError(
            f"experts.hidden comes to {hidden}; allowed with init: upcycle: at most the width of the host's MLP,"
            f" {dense.hidden}"
        )
    units_EF = chosen_units(experts, dense, first_unit)
    first_EFD = dense.fc1.weight[units_EF]
    last_EDF = dense.fc2.weight.T[units_EF].mT * (dense.hidden / hidden)
    if isinstance(experts, MlpExperts):
        experts.fc1.weight.copy_(first_EFD)
        experts.fc2.weight.copy_(last_EDF)
        if experts.fc1.bias is not None and experts.fc2.bias is not None:
            experts.fc1.bias.copy_(dense.fc1.bias[units_EF])
            experts.fc2.bias.copy_(dense.fc2.bias.expand_as(experts.fc2.bias))
    else:
        assert isinstance(experts, GluExperts | LowRankGluExperts)
        if isinstance(experts, GluExperts):
            experts.gate.weight.copy_(gate_slope * first_EFD)
        else:
            down_ERD, up_EFR = factorise(gate_slope * first_EFD, experts.gate_down.weight.shape[1])
            experts.gate_down.weight.copy_(down_ERD)
            experts.gate_up.weight.copy_(up_EFR)
        experts.up.weight.copy_(first_EFD)
        experts.down.weight.copy_(last_EDF)
    if noise:
        for layer in experts.all_layers():
            layer.weight.add_(torch.randn_like(layer.weight), alpha=noise * float(layer.weight.std()))


@torch.no_grad()
def divide_output(experts: Experts, total_weight: float) -> None:
    """Divide what every expert writes by the sum of weights that it will be multiplied by."""
    last = experts.layers()[-1]
    last.weight.div_(total_weight)
    if last.bias is not None:
        last.bias.div_(total_weight)


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
def factorisation_error(experts: LowRankGluExperts, dense: DenseMlp) -> float:
    """``‖W − c B A‖ / ‖W‖`` over all experts, W being the rows of the MLP's first weight that A and B stand for.

    c is the factor that fits best, by which the slope of the gate cancels.
    """
    product = experts.gate_up.weight.double() @ experts.gate_down.weight.double()
    whole = dense.fc1.weight.double()[chosen_units(experts, dense)]
    factor = (product * whole).sum() / product.square().sum()
    return float((whole - factor * product).norm() / whole.norm())


class TypicalTokens(NamedTuple):
    """Random tokens (B, N, D): as the block's norm reads them, and as it gives them to the MLP."""

    before_norm: Tensor
    normed: Tensor


@torch.no_grad()
def typical_tokens(norm: nn.Module | None, dim: int, tokens: int, *, least: int = 2048) -> TypicalTokens:
    """Gaussian tokens through the norm with its own gain and shift; through a plain layer norm where it is unknown.

    tokens: N, of a sequence. least: tokens in all, for which there are sequences enough.
    """
    x_BND = torch.randn(-(-least // tokens), tokens, dim)
    if norm is None:
        return TypicalTokens(x_BND, functional.layer_norm(x_BND, [dim]))
    like = next(norm.parameters(), x_BND)
    return TypicalTokens(x_BND, norm(x_BND.to(like.device, like.dtype)).to(x_BND))


@torch.no_grad()
def expected_weight(gate: Gate, x_BND: Tensor, features_TER: Tensor | None) -> float:
    """What the weights of a token's experts sum to, in the mean over these tokens.

    To six digits, so that the rounding of weights that sum to 1 leaves copies as they are.
    """
    with evaluating(gate):
        routing = gate(x_BND.flatten(0, 1), features_TER, x_BND.shape[:2])
    return round(float(routing.weights.double().sum(1).mean()), 6)
