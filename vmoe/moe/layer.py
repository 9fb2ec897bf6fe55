"""The MoE layer: gate, experts and dispatch meet here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .dispatch import choose_dispatch
from .experts import Experts
from .gates import Gate
from .routing import Routing


class MoE(nn.Module):
    """Mixture of experts in place of an MLP: (B, …, D) in, a tensor of the same shape out.

    Its Routing leaves only when somebody listens (`record`), so a forward stores nothing. Activation
    checkpointing runs a forward again during the backward pass; such a second forward is not recorded.

    dropout: of the output in training, as timm's `Mlp.drop2`.
    """

    def __init__(self, gate: Gate, experts: Experts, *, dispatch: str = "auto", dropout: float = 0):
        super().__init__()
        self.gate = gate
        self.experts = experts
        self.dispatch = choose_dispatch(dispatch)
        self.dropout = dropout
        self.listener: Callable[[Routing], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        x_TD = x.reshape(-1, x.shape[-1])
        features_TER = self.experts.features(x_TD)
        routing = self.gate(x_TD, features_TER, x.shape[:-1])
        if self.listener is not None and not in_backward():
            self.listener(routing)
        y_TD = self.dispatch(x_TD, features_TER, routing, self.experts)
        return functional.dropout(y_TD, self.dropout, self.training).reshape(x.shape)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles have no listener, so a model can be copied while it is recorded."""
        return {**self.__dict__, "listener": None}

    @property
    def flops_per_token(self) -> int:
        """FLOPs spent on every token whatever its routing: the gate, and the features it scores by."""
        return self.gate.flops_per_token + self.experts.flops_per_token


def in_backward() -> bool:
    """Whether autograd is running a backward pass in this thread (torch's own checkpointing asks the same way)."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def moe_layers(model: nn.Module) -> Iterator[tuple[str, MoE]]:
    """The MoE layers of a model with their qualified names, in order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, MoE))
