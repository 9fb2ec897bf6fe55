"""An expert as the fused path sees it: stacked weights and an activation known by name.

``y = down(act(gate(z or x)) ⊙ up(x))``, without ``up`` for a plain MLP.

Shapes: E experts, T tokens, D width, F hidden width, I gate inputs (D, or the rank R of features z), P rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Network(NamedTuple):
    """The weights of E experts, or their gradients; those that a kind of expert lacks are None."""

    gate_EFI: Tensor
    gate_bias_EF: Tensor | None
    up_EFD: Tensor | None
    down_EDF: Tensor
    down_bias_ED: Tensor | None

    def map(self, function: Callable[[Tensor], Tensor]) -> Network:
        """The function of each tensor that there is."""
        return Network._make(None if weight is None else function(weight) for weight in self)

    def expert(self, e: int) -> Expert:
        """Views of one expert's weights."""
        return Expert._make(None if weight is None else weight[e] for weight in self)


class Expert(NamedTuple):
    """One expert of a `Network`."""

    gate_FI: Tensor
    gate_bias_F: Tensor | None
    up_FD: Tensor | None
    down_DF: Tensor
    down_bias_D: Tensor | None


class Inputs(NamedTuple):
    """What the fused operator is given; see `vmoe.moe.dispatch.fused`.

    z_PR: the features that ``gate`` reads in place of x, where there are some. weights_P: of each pair.
    tokens_P, ends_E: as in `vmoe.moe.dispatch.pairs`. activation: its name in `vmoe.moe.activations`.
    """

    x_TD: Tensor
    z_PR: Tensor | None
    weights_P: Tensor
    tokens_P: Tensor
    ends_E: Tensor
    network: Network
    activation: str


class Hidden(NamedTuple):
    """What the activation and ``⊙`` read, the only rows that a forward keeps for its backward.

    gate_PF: (P, F), or (0, F) where nothing is kept. up_PF: likewise, and (0, F) without ``up``.
    """

    gate_PF: Tensor
    up_PF: Tensor


class Gradients(NamedTuple):
    """By the rows of x, by z if it was given, by each pair's weight, and by the network's weights."""

    x_TD: Tensor
    z_PR: Tensor | None
    weights_P: Tensor
    network: Network
