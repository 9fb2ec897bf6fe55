"""Stacked experts: E small networks of one shape, their weights in one tensor a product.

Weights lie as in `torch.nn.Linear` behind a leading expert axis, so a stack of E dense MLPs is `torch.stack` of
their weights. `each()` yields one function an expert, over the rows of its tokens.

Shapes: T tokens, P rows of one expert, D width, E experts, F hidden width, R rank.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]
ExpertFunction = Callable[..., Tensor]  # x_PD=(P, D), z_PR=(P, R) or None -> (P, D)
LinearWeights = tuple[Tensor, Tensor | None]


class StackedLinear(nn.Module):
    """E linear maps: weight (E, out, in), bias (E, out) or None."""

    def __init__(self, num_experts: int, in_features: int, out_features: int, *, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(num_experts, out_features)) if bias else None

    def reset_parameters(self, std: float) -> None:
        """Weights from N(0, std), biases 0."""
        nn.init.normal_(self.weight, std=std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @torch.no_grad()
    def copy_from(self, linear: nn.Linear) -> None:
        """Give every expert the weights of one dense layer of the same shape."""
        self.weight.copy_(linear.weight.expand_as(self.weight))
        if self.bias is not None:
            self.bias.copy_(linear.bias.expand_as(self.bias))

    def unbind(self) -> list[LinearWeights]:
        """(weight, bias) of each expert; one unbind, because its backward is one stack."""
        weights = self.weight.unbind()
        biases = (None,) * len(weights) if self.bias is None else self.bias.unbind()
        return list(zip(weights, biases, strict=True))

    @property
    def size(self) -> int:
        """Weights of one expert, biases aside: the multiply-adds of one row."""
        return self.weight[0].numel()


class Experts(nn.Module):
    """What the layer, the dispatch and the accounts ask of a stack of experts.

    dropout: of the hidden rows in training, as timm's `Mlp.drop1`.
    """

    def __init__(self, num_experts: int, activation: Activation, dropout: float):
        super().__init__()
        self.num_experts = num_experts
        self.activation = activation
        self.dropout = dropout

    def pair_layers(self) -> list[StackedLinear]:
        """The products computed for active pairs only, in the order `expert` takes their weights."""
        raise NotImplementedError

    def expert(self, *weights: LinearWeights, x_PD: Tensor, z_PR: Tensor | None) -> Tensor:
        """(P, D): one expert, given by its weights, over the rows of its tokens."""
        raise NotImplementedError

    def reset_parameters(self, std_in: float, std_out: float) -> None:
        """Draw weights afresh: those that read x with std_in, those that write y with std_out."""
        raise NotImplementedError

    def features(self, x_TD: Tensor) -> Tensor | None:
        """(T, E, R), what every expert computes of every token before the gate decides; None if nothing."""
        return None

    def each(self) -> list[ExpertFunction]:
        """One function an expert, of its tokens' rows of x and of the features."""
        weights = zip(*(layer.unbind() for layer in self.pair_layers()), strict=True)
        return [partial(self.expert, *expert) for expert in weights]

    def hidden_dropout(self, hidden_PF: Tensor) -> Tensor:
        return functional.dropout(hidden_PF, self.dropout, self.training)

    @property
    def flops_per_pair(self) -> int:
        """FLOPs of one token in one expert, 2 a multiply-add; activations and biases are not counted."""
        return 2 * sum(layer.size for layer in self.pair_layers())

    @property
    def params_per_pair(self) -> int:
        """Parameters that one active pair touches."""
        return sum(parameter[0].numel() for layer in self.pair_layers() for parameter in layer.parameters())

    @property
    def flops_per_token(self) -> int:
        """FLOPs spent on every token whether its pairs are active or not."""
        return 0


class MlpExperts(Experts):
    """``fc2(act(fc1 x))``, the host's own MLP."""

    def __init__(
        self,
        num_experts: int,
        dim: int,
        hidden: int,
        activation: Activation,
        *,
        bias: bool = True,
        dropout: float = 0,
    ):
        super().__init__(num_experts, activation, dropout)
        self.fc1 = StackedLinear(num_experts, dim, hidden, bias=bias)
        self.fc2 = StackedLinear(num_experts, hidden, dim, bias=bias)

    def expert(self, *weights: LinearWeights, x_PD: Tensor, z_PR: Tensor | None) -> Tensor:
        fc1, fc2 = weights
        hidden_PF = self.activation(functional.linear(x_PD, *fc1))
        return functional.linear(self.hidden_dropout(hidden_PF), *fc2)

    def reset_parameters(self, std_in: float, std_out: float) -> None:
        self.fc1.reset_parameters(std_in)
        self.fc2.reset_parameters(std_out)

    def pair_layers(self) -> list[StackedLinear]:
        return [self.fc1, self.fc2]


class GluExperts(Experts):
    """``W_down(act(x W_gate) ⊙ (x W_up))`` without biases (arXiv 2002.05202, eq. 6)."""

    def __init__(self, num_experts: int, dim: int, hidden: int, activation: Activation, *, dropout: float = 0):
        super().__init__(num_experts, activation, dropout)
        self.gate = StackedLinear(num_experts, dim, hidden, bias=False)
        self.up = StackedLinear(num_experts, dim, hidden, bias=False)
        self.down = StackedLinear(num_experts, hidden, dim, bias=False)

    def expert(self, *weights: LinearWeights, x_PD: Tensor, z_PR: Tensor | None) -> Tensor:
        gate, up, down = weights
        hidden_PF = self.activation(functional.linear(x_PD, *gate)) * functional.linear(x_PD, *up)
        return functional.linear(self.hidden_dropout(hidden_PF), *down)

    def reset_parameters(self, std_in: float, std_out: float) -> None:
        self.gate.reset_parameters(std_in)
        self.up.reset_parameters(std_in)
        self.down.reset_parameters(std_out)

    def pair_layers(self) -> list[StackedLinear]:
        return [self.gate, self.up, self.down]


class LowRankGluExperts(Experts):
    """``W_down(act(z B) ⊙ (x W_up))`` with ``z = x A`` (arXiv 2604.00801; Autonomy-of-Experts, 2501.13074).

    z of all experts is one product and is computed before the gate, which scores the experts by it (under autocast,
    in the lower precision; the norm is taken in float32).
    """

    def __init__(
        self, num_experts: int, dim: int, hidden: int, rank: int, activation: Activation, *, dropout: float = 0
    ):
        super().__init__(num_experts, activation, dropout)
        self.gate_down = StackedLinear(num_experts, dim, rank, bias=False)  # A
        self.gate_up = StackedLinear(num_experts, rank, hidden, bias=False)  # B
        self.up = StackedLinear(num_experts, dim, hidden, bias=False)
        self.down = StackedLinear(num_experts, hidden, dim, bias=False)

    def features(self, x_TD: Tensor) -> Tensor:
        return functional.linear(x_TD, self.gate_down.weight.flatten(0, 1)).unflatten(1, (self.num_experts, -1))

    def expert(self, *weights: LinearWeights, x_PD: Tensor, z_PR: Tensor | None) -> Tensor:
        gate_up, up, down = weights
        assert z_PR is not None, "the dispatch passes the rows of `features`"
        hidden_PF = self.activation(functional.linear(z_PR, *gate_up)) * functional.linear(x_PD, *up)
        return functional.linear(self.hidden_dropout(hidden_PF), *down)

    def reset_parameters(self, std_in: float, std_out: float) -> None:
        self.gate_down.reset_parameters(std_in)
        rank = self.gate_down.weight.shape[1]
        # The product A B stands where a dense gate projection would: entries of A B get that deviation too.
        self.gate_up.reset_parameters(1 / rank**0.5)
        self.up.reset_parameters(std_in)
        self.down.reset_parameters(std_out)

    def pair_layers(self) -> list[StackedLinear]:
        return [self.gate_up, self.up, self.down]

    @property
    def flops_per_token(self) -> int:
        return 2 * self.gate_down.weight.numel()
