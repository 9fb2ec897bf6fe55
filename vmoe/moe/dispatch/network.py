"""An expert as the fused path sees it: stacked weights and an activation known by name.

``y = down(act(gate(z or x)) ⊙ up(x))``, without ``up`` for a plain MLP.

Shapes: E experts, D width, F hidden width, I gate inputs (D, or the rank of features z), P rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..activations import ACTIVATIONS


class Network(NamedTuple):
    """The weights of E experts; those that a kind of expert lacks are None."""

    gate_EFI: Tensor
    gate_bias_EF: Tensor | None
    up_EFD: Tensor | None
    down_EDF: Tensor
    down_bias_ED: Tensor | None

    def to(self, dtype: torch.dtype) -> Network:
        return Network(*(None if weight is None else weight.to(dtype) for weight in self))


class Hidden(NamedTuple):
    """What a forward keeps of the hidden rows: the products that the activation and ``⊙`` read.

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


def hidden_rows(activation: str, gate_PF: Tensor, up_PF: Tensor | None, out_PF: Tensor) -> Tensor:
    """``act(gate) ⊙ up`` into a tensor that is given."""
    hidden_PF = ACTIVATIONS[activation].forward(gate_PF, out_PF)
    return hidden_PF if up_PF is None else hidden_PF.mul_(up_PF)
