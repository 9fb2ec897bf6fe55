"""Balance: what is added to the task loss, and the controllers that set coefficients and biases.

A controller is a module apart from the model. In training, call it on each forward's Routings and add what it
returns to the task loss; call `step()` once after every optimizer step. Its state lies in buffers, to be saved
with the checkpoint; moving averages of the model do not touch it. Nothing here runs in a model's forward.

What experts served is summed over processes, in one exchange a call, so all processes call a balance equally often.
Losses are then such that their mean over processes, each with equally many tokens, is the loss of all tokens together,
gradient included ("global-batch" balance, arXiv 2501.11873). What `step` does depends on those counts alone, summed
over the calls since the last one, so it is the same on every process, and however the same tokens are split.

Shapes: T tokens, E experts, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .collective import sum_together
from .gates import TopKGate
from .layer import MoE, moe_layers
from .losses import Served, relu_loss, routing_free_loss, switch_loss, z_loss
from .routing import Routing
from .spec import AutonomyOfExperts, Relu, RoutingFree, TopK


class Balance(nn.Module):
    """No balance loss and nothing to control: dense models, Self-Routing, random routing, expert choice, Soft MoE."""

    def forward(self, routings: Mapping[str, Routing]) -> Tensor | float:
        """The loss to add for one forward's Routings, coefficient included."""
        return 0.0

    def step(self) -> None:
        """Move what is controlled, once after each optimizer step, alike on every rank."""

    def forget(self) -> None:
        """Leave out what was counted since the last step, for an optimizer step that is not taken."""

    def figures(self) -> dict[str, Tensor]:
        """What is worth a line in the log."""
        return {}


class SwitchBalance(Balance):
    """Fixed coefficients: Switch balance and z-loss, each summed over the layers."""

    def __init__(self, balance: float, z_loss: float = 0.0):
        super().__init__()
        self.balance = balance
        self.z_loss = z_loss

    def forward(self, routings: Mapping[str, Routing]) -> Tensor | float:
        return self.loss(routings, served_by_all(routings) if self.balance else {})

    def loss(self, routings: Mapping[str, Routing], served: Mapping[str, Served]) -> Tensor | float:
        """The loss by what the experts of each layer served on all processes; it is asked for with a balance alone."""
        loss: Tensor | float = 0.0
        for name, routing in routings.items():
            if self.balance:
                loss = loss + self.balance * switch_loss(routing, served[name])
            if self.z_loss:
                loss = loss + self.z_loss * z_loss(routing)
        return loss


class BiasBalance(SwitchBalance):
    """Auxiliary-loss-free balance: ``b_e ← b_e + u · sign(mean load − load_e)`` (arXiv 2408.15664, algorithm 1).

    The biases belong to the model, since they select experts in evaluation too; the gates hold them as whole numbers
    of steps of u. Losses with fixed coefficients may go beside.
    """

    pairs: Tensor

    def __init__(self, gates: Mapping[str, TopKGate], balance: float, z_loss: float = 0.0):
        super().__init__(balance, z_loss)
        self.names = list(gates)
        self.gates = tuple(gates.values())  # no submodules: they are the model's
        steps = [biases_of(gate) for gate in self.gates]
        self.register_buffer("pairs", torch.zeros_like(torch.stack(steps)))

    def forward(self, routings: Mapping[str, Routing]) -> Tensor | float:
        require_routings(routings)
        served = served_by_all(routings)
        self.pairs += torch.stack([served[name].pairs_E for name in self.names])
        return self.loss(routings, served)

    @torch.no_grad()
    def step(self) -> None:
        pairs_LE = self.pairs
        # mean load − load_e has the sign of Σ load − E · load_e, in whole numbers
        above_LE = pairs_LE.sum(1, keepdim=True) - pairs_LE.shape[1] * pairs_LE
        for gate, above_E in zip(self.gates, above_LE, strict=True):
            biases_of(gate).add_(above_E.sign())
        self.forget()

    def forget(self) -> None:
        self.pairs.zero_()


def biases_of(gate: TopKGate) -> Tensor:
    assert gate.bias_steps is not None, "a gate with bias_rate has biases"
    return gate.bias_steps


class AdaptiveBalance(Balance):
    """A loss whose coefficient λ follows the density of active pairs, once an optimizer step.

    The density is that of all pairs since the last step, summed over layers, micro-batches and processes.
    """

    coefficient: Tensor
    active_pairs: Tensor
    all_pairs: Tensor
    density: Tensor

    def __init__(self, start: float):
        super().__init__()
        self.register_buffer("coefficient", torch.tensor(start, dtype=torch.float64))
        self.register_buffer("active_pairs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("all_pairs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("density", torch.full((), torch.nan, dtype=torch.float64))

    def loss(self, routings: Mapping[str, Routing], served: Mapping[str, Served]) -> Tensor:
        """The loss without its coefficient, by what the experts of each layer served on all processes."""
        raise NotImplementedError

    def adapt(self, density: Tensor) -> None:
        """Move the coefficient by the density, which is nan if there were no pairs."""
        raise NotImplementedError

    def forward(self, routings: Mapping[str, Routing]) -> Tensor | float:
        require_routings(routings)
        served = served_by_all(routings)
        for pairs_E, tokens in served.values():
            self.active_pairs += pairs_E.sum()
            self.all_pairs += tokens * len(pairs_E)
        loss = self.loss(routings, served)
        return self.coefficient.to(loss.dtype) * loss

    @torch.no_grad()
    def step(self) -> None:
        self.density.copy_(self.active_pairs / self.all_pairs.double())
        self.adapt(self.density)
        self.forget()

    def forget(self) -> None:
        self.active_pairs.zero_()
        self.all_pairs.zero_()

    def figures(self) -> dict[str, Tensor]:
        return {"balance_coefficient": self.coefficient}


class RoutingFreeBalance(AdaptiveBalance):
    """``λ · (μ·L_E + (1−μ)·L_T)`` with ``λ ← min(1, λ·(1+η)^sign(ρ−ρ∞))`` (arXiv 2604.00801)."""

    def __init__(self, spec: RoutingFree):
        super().__init__(spec.balance_start)
        self.spec = spec

    def loss(self, routings: Mapping[str, Routing], served: Mapping[str, Served]) -> Tensor:
        layers, counts = list(routings.values()), [served[name] for name in routings]
        return routing_free_loss(layers, self.spec.expert_share, counts)

    def adapt(self, density: Tensor) -> None:
        direction = torch.sign(density - self.spec.target_density).nan_to_num(0)  # no pairs, no move
        self.coefficient.mul_((1 + self.spec.balance_rate) ** direction).clamp_(max=1)


class ReluBalance(AdaptiveBalance):
    """λ times the mean over layers of the load-balanced L1 loss (ReMoE, arXiv 2412.14711, section 3).

    λ is multiplied by α where the sparsity is below 1 − k/E, that is the density above k/E, and else divided by it.
    """

    def __init__(self, spec: Relu, num_experts: int):
        super().__init__(spec.balance_start)
        self.spec = spec
        self.target = spec.k / num_experts

    def loss(self, routings: Mapping[str, Routing], served: Mapping[str, Served]) -> Tensor:
        return torch.stack([relu_loss(routing, self.spec.k, served[name]) for name, routing in routings.items()]).mean()

    def adapt(self, density: Tensor) -> None:
        direction = torch.where(density > self.target, 1, -1) * ~density.isnan()  # no pairs, no move
        self.coefficient.mul_(self.spec.balance_factor ** direction.double())


@torch.no_grad()
def served_by_all(routings: Mapping[str, Routing]) -> dict[str, Served]:
    """What each layer's experts served on all processes between them, which each ask for it, in one exchange."""
    served = {name: Served.of(routing) for name, routing in routings.items()}
    sum_together([count for each in served.values() for count in each])
    return served


def require_routings(routings: Mapping[str, Routing]) -> None:
    if not routings:
        raise ValueError("no routings to balance; call the model within `record` and pass on what it gives")


def build_balance(layers: Mapping[str, MoE]) -> Balance:
    """The balance that the method of these layers prescribes. Raises `ValueError` if their gates differ."""
    specs = {layer.gate.spec for layer in layers.values()}
    if len(specs) > 1:
        raise ValueError(f"the MoE layers of the model have {len(specs)} different gates; build a balance for each")
    spec = next(iter(specs), None)
    if isinstance(spec, TopK) and spec.bias_rate:
        gates = {name: layer.gate for name, layer in layers.items() if isinstance(layer.gate, TopKGate)}
        return BiasBalance(gates, spec.balance, spec.z_loss)
    if isinstance(spec, TopK):
        return SwitchBalance(spec.balance, spec.z_loss)
    if isinstance(spec, AutonomyOfExperts):
        return SwitchBalance(spec.balance)
    if isinstance(spec, RoutingFree):
        return RoutingFreeBalance(spec)
    if isinstance(spec, Relu):
        return ReluBalance(spec, next(iter(layers.values())).experts.num_experts)
    return Balance()


def balance_for(model: nn.Module) -> Balance:
    """The balance that the gates of a model's MoE layers prescribe. Raises `ValueError` if they differ."""
    return build_balance(dict(moe_layers(model)))
