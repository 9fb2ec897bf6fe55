"""Balance: losses as pure functions of Routings, and the controllers that set their coefficients.

A controller is a module apart from the model. In training, call it on each forward's Routings and add what it
returns to the task loss; call `step()` once after every optimizer step. Its state lies in buffers, to be saved
with the checkpoint; moving averages of the model do not touch it. Nothing here runs in a model's forward.

Shapes: T tokens, E experts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import groupby

import torch
from torch import Tensor, nn

from .collective import sum_over_processes
from .layer import moe_layers
from .routing import Routing
from .spec import GateSpec, RoutingFree, TopK


def switch_loss(routing: Routing) -> Tensor:
    """``E · Σ_e f_e P_e`` (Switch, arXiv 2101.03961, eq. 4–6); 1 at perfect balance.

    f_e: share of the assignments that go to e, without gradient. P_e: mean softmax probability of e.
    """
    pairs_E = routing.active.sum(0)
    share_E = pairs_E / pairs_E.sum()
    probability_E = routing.scores.softmax(dim=-1).mean(0)
    return routing.num_experts * (share_E * probability_E).sum()


def z_loss(routing: Routing) -> Tensor:
    """``mean_t (logsumexp scores_t)²`` (ST-MoE, arXiv 2202.08906, eq. 5)."""
    return routing.scores.logsumexp(dim=-1).square().mean()


def routing_free_loss(routings: Collection[Routing], expert_share: float) -> Tensor:
    """``μ·L_E + (1−μ)·L_T`` over the pairs of all layers at once (Routing-Free, arXiv 2604.00801).

    With M the active pairs and P = relu(score) where active, else 0, both (T, L·E):
    ``L_E = mean_j(mean_t M · mean_t P)`` and ``L_T = mean_t(mean_j M · mean_j P)``. M carries no gradient. Layers
    of different T (hierarchical hosts) are taken in groups of equal T, weighted by their columns.
    """
    columns = sum(routing.num_experts for routing in routings)
    loss = torch.zeros((), device=next(iter(routings)).weights.device)
    for _, group in groupby(sorted(routings, key=num_tokens), key=num_tokens):
        layers = list(group)
        active = torch.cat([routing.active for routing in layers], dim=1).float()
        weights = torch.cat([routing.weights for routing in layers], dim=1).relu()
        expert_balance = (active.mean(0) * weights.mean(0)).mean()
        token_balance = (active.mean(1) * weights.mean(1)).mean()
        both = expert_share * expert_balance + (1 - expert_share) * token_balance
        loss = loss + both * active.shape[1] / columns
    return loss


def num_tokens(routing: Routing) -> int:
    return routing.num_tokens


class Balance(nn.Module):
    """No balance loss and nothing to control: dense models, Self-Routing, random routing."""

    def forward(self, routings: Mapping[str, Routing]) -> Tensor | float:
        """The loss to add for one forward's Routings, coefficient included."""
        return 0.0

    def step(self) -> None:
        """Move the coefficient, once after each optimizer step, alike on every rank."""

    def figures(self) -> dict[str, Tensor]:
        """What is worth a line in the log."""
        return {}


class SwitchBalance(Balance):
    """Fixed coefficients: Switch balance and z-loss, each summed over the layers."""

    def __init__(self, spec: TopK):
        super().__init__()
        self.spec = spec

    def forward(self, routings: Mapping[str, Routing]) -> Tensor | float:
        loss: Tensor | float = 0.0
        for routing in routings.values():
            if self.spec.balance:
                loss = loss + self.spec.balance * switch_loss(routing)
            if self.spec.z_loss:
                loss = loss + self.spec.z_loss * z_loss(routing)
        return loss


class RoutingFreeBalance(Balance):
    """``λ · (μ·L_E + (1−μ)·L_T)`` with ``λ ← min(1, λ·(1+η)^sign(ρ−ρ∞))`` after each optimizer step.

    ρ is the density of all pairs since the last step, summed over layers, micro-batches and ranks, so λ does not
    depend on how the same tokens are split.
    """

    coefficient: Tensor
    active_pairs: Tensor
    all_pairs: Tensor
    density: Tensor

    def __init__(self, spec: RoutingFree):
        super().__init__()
        self.spec = spec
        self.register_buffer("coefficient", torch.tensor(spec.balance_start, dtype=torch.float64))
        self.register_buffer("active_pairs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("all_pairs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("density", torch.full((), torch.nan, dtype=torch.float64))

    def forward(self, routings: Mapping[str, Routing]) -> Tensor | float:
        if not routings:
            raise ValueError("no routings to balance; call the model within `record` and pass on what it gives")
        with torch.no_grad():
            for routing in routings.values():
                self.active_pairs += routing.count_pairs()
                self.all_pairs += routing.active.numel()
        loss = routing_free_loss(routings.values(), self.spec.expert_share)
        return self.coefficient.to(loss.dtype) * loss

    @torch.no_grad()
    def step(self) -> None:
        counts = sum_over_processes(torch.stack([self.active_pairs, self.all_pairs]))
        self.density.copy_(counts[0] / counts[1].double())
        direction = torch.sign(self.density - self.spec.target_density).nan_to_num(0)  # no pairs, no move
        self.coefficient.mul_((1 + self.spec.balance_rate) ** direction).clamp_(max=1)
        self.active_pairs.zero_()
        self.all_pairs.zero_()

    def figures(self) -> dict[str, Tensor]:
        return {"density": self.density, "balance_coefficient": self.coefficient}


def build_balance(spec: GateSpec) -> Balance:
    """The balance that a gate's method prescribes."""
    if isinstance(spec, TopK):
        return SwitchBalance(spec)
    if isinstance(spec, RoutingFree):
        return RoutingFreeBalance(spec)
    return Balance()


def balance_for(model: nn.Module) -> Balance:
    """The balance that the gates of a model's MoE layers prescribe. Raises `ValueError` if they differ."""
    specs = {layer.gate.spec for _, layer in moe_layers(model)}
    if len(specs) > 1:
        raise ValueError(f"the MoE layers of the model have {len(specs)} different gates; build a balance for each")
    return build_balance(specs.pop()) if specs else Balance()
