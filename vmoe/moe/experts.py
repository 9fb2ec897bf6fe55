"""Stacked experts: E small networks of one shape, their weights in one tensor a product.

Weights lie as in `torch.nn.Linear` behind a leading expert axis, so a stack of E dense MLPs is `torch.stack` of
their weights. What an expert computes is written once, in `compute`, over a function that applies one stacked layer
to rows; that function decides which expert's weights meet which rows: one expert's (`each`), every expert's on equal
numbers of rows (`batched`), or groups of consecutive rows (`vmoe.moe.dispatch.grouped`).

Shapes: T tokens, P rows of one expert, D width, E experts, F hidden width, R rank.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .activations import identify_activation

Activation = Callable[[Tensor], Tensor]
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

    def forward(self, x_EPD: Tensor) -> Tensor:
        """Each expert's map over its own rows, as one batched product."""
        if self.bias is None:
            return torch.bmm(x_EPD, self.weight.mT)
        return torch.baddbmm(self.bias[:, None], x_EPD, self.weight.mT)

    def unbind(self) -> list[LinearWeights]:
        """(weight, bias) of each expert; one unbind, because its backward is one stack."""
        weights = self.weight.unbind()
        biases = (None,) * len(weights) if self.bias is None else self.bias.unbind()
        return list(zip(weights, biases, strict=True))

    @property
    def size(self) -> int:
        """Weights of one expert, biases aside: the multiply-adds of one row."""
        return self.weight[0].numel()


ApplyLinear = Callable[[StackedLinear, Tensor], Tensor]
ExpertFunction = Callable[..., Tensor]  # x=(P, D), z=(P, R) or None -> (P, D)


class Products(NamedTuple):
    """The stacked products of ``down(act(gate(x)) ⊙ up(x))``; a plain MLP has no ``up``."""

    gate: StackedLinear
    up: StackedLinear | None
    down: StackedLinear


class Experts(nn.Module):
    """What the layer, the dispatch and the accounts ask of a stack of experts.

    dropout: of the hidden rows in training, as timm's `Mlp.drop1`.
    activation_name: of an activation whose derivative is known (`vmoe.moe.activations`), else None.
    """

    def __init__(self, num_experts: int, activation: Activation, dropout: float):
        super().__init__()
        self.num_experts = num_experts
        self.activation = activation
        self.activation_name = identify_activation(activation)
        self.dropout = dropout

    @property
    def products(self) -> Products:
        """The products of every row, by their part in the formula."""
        raise NotImplementedError

    @property
    def num_held(self) -> int:
        """Experts whose products are here: all of them, unless other processes hold the others (`MoE.hold_part`)."""
        return len(self.products.down.weight)

    @property
    def feature_layer(self) -> StackedLinear | None:
        """What makes the features z that ``gate`` then reads in place of x; None for most experts."""
        return None

    def layers(self) -> list[StackedLinear]:
        """The products of every row."""
        return [product for product in self.products if product is not None]

    def feature_layers(self) -> list[StackedLinear]:
        """The products that make the features, which a gate may need of every token."""
        return [] if self.feature_layer is None else [self.feature_layer]

    def all_layers(self) -> list[StackedLinear]:
        """Every product, those of the features first."""
        return [*self.feature_layers(), *self.layers()]

    def compute(self, linear: ApplyLinear, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The experts' formula over rows x; z: the rows' features where they are known already.

        linear: applies a stacked layer to rows.
        """
        gate, up, down = self.products
        if self.feature_layer is not None and z is None:
            z = linear(self.feature_layer, x)
        hidden = self.activation(linear(gate, x if z is None else z))
        if up is not None:
            hidden = hidden * linear(up, x)
        return linear(down, self.hidden_dropout(hidden))

    def reset_parameters(self, std_in: float, std_out: float) -> None:
        """Draw weights afresh: those that read x with std_in, those that write y with std_out."""
        raise NotImplementedError

    def features(self, x_TD: Tensor) -> Tensor:
        """(T, E, R): the features of every token for every expert."""
        raise NotImplementedError

    def each(self) -> list[ExpertFunction]:
        """One function an expert that is here, of its tokens' rows and, where they are known, their features."""
        unbound = {layer: layer.unbind() for layer in self.all_layers()}

        def linear_of(e: int) -> ApplyLinear:
            return lambda layer, x_PD: functional.linear(x_PD, *unbound[layer][e])

        return [partial(self.compute, linear_of(e)) for e in range(self.num_held)]

    def batched(self, x_EPD: Tensor) -> Tensor:
        """(E, P, D): every expert on rows of its own, as many for each."""
        return self.compute(StackedLinear.__call__, x_EPD)

    def everywhere(self, x_TD: Tensor) -> Tensor:
        """(T, D): the sum of all experts on every token."""
        y_ETD = self.batched(x_TD.expand(self.num_experts, *x_TD.shape))
        return y_ETD.sum(0, dtype=y_ETD.dtype)  # autocast on CUDA would widen it

    def hidden_dropout(self, hidden: Tensor) -> Tensor:
        return functional.dropout(hidden, self.dropout, self.training)


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

    @property
    def products(self) -> Products:
        return Products(self.fc1, None, self.fc2)

    def reset_parameters(self, std_in: float, std_out: float) -> None:
        self.fc1.reset_parameters(std_in)
        self.fc2.reset_parameters(std_out)


class GluExperts(Experts):
    """``W_down(act(x W_gate) ⊙ (x W_up))`` without biases (arXiv 2002.05202, eq. 6)."""

    def __init__(self, num_experts: int, dim: int, hidden: int, activation: Activation, *, dropout: float = 0):
        super().__init__(num_experts, activation, dropout)
        self.gate = StackedLinear(num_experts, dim, hidden, bias=False)
        self.up = StackedLinear(num_experts, dim, hidden, bias=False)
        self.down = StackedLinear(num_experts, hidden, dim, bias=False)

    @property
    def products(self) -> Products:
        return Products(self.gate, self.up, self.down)

    def reset_parameters(self, std_in: float, std_out: float) -> None:
        self.gate.reset_parameters(std_in)
        self.up.reset_parameters(std_in)
        self.down.reset_parameters(std_out)


class LowRankGluExperts(Experts):
    """``W_down(act(z B) ⊙ (x W_up))`` with ``z = x A`` (arXiv 2604.00801; Autonomy-of-Experts, 2501.13074).

    For a gate that scores experts by z, z of all experts is one product, computed once for gate and experts (under
    autocast, in the lower precision; the norm is taken in float32). For other gates z is computed for active pairs.
    """

    def __init__(
        self, num_experts: int, dim: int, hidden: int, rank: int, activation: Activation, *, dropout: float = 0
    ):
        super().__init__(num_experts, activation, dropout)
        self.gate_down = StackedLinear(num_experts, dim, rank, bias=False)  # A
        self.gate_up = StackedLinear(num_experts, rank, hidden, bias=False)  # B
        self.up = StackedLinear(num_experts, dim, hidden, bias=False)
        self.down = StackedLinear(num_experts, hidden, dim, bias=False)

    @property
    def feature_layer(self) -> StackedLinear:
        return self.gate_down

    @property
    def products(self) -> Products:
        return Products(self.gate_up, self.up, self.down)

    def features(self, x_TD: Tensor) -> Tensor:
        return functional.linear(x_TD, self.gate_down.weight.flatten(0, 1)).unflatten(1, (self.num_experts, -1))

    def reset_parameters(self, std_in: float, std_out: float) -> None:
        self.gate_down.reset_parameters(std_in)
        rank = self.gate_down.weight.shape[1]
        # The product A B stands where a dense gate projection would: entries of A B get that deviation too.
        self.gate_up.reset_parameters(1 / rank**0.5)
        self.up.reset_parameters(std_in)
        self.down.reset_parameters(std_out)
