"""The MoE layer: gate, experts and dispatch meet here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .dispatch import DispatchOptions, ExpertPlace, dispatch
from .experts import Experts, StackedLinear
from .gates import Gate
from .routing import Routing

AUTO = DispatchOptions()


class MoE(nn.Module):
    """Mixture of experts in place of an MLP: (B, …, D) in, a tensor of the same shape out.

    Its Routing leaves only when somebody listens (`record`), so a forward stores nothing. Activation
    checkpointing runs a forward again during the backward pass; such a second forward is not recorded.

    shared: experts that serve every token with weight 1.
    norm: applied to the input for the experts, for a gate that reads the input as it is before that.
    dispatch: how the experts are run.
    dropout: of the output in training, as timm's `Mlp.drop2`.

    place: where the experts lie, after `hold_part`; None while this process holds them all.
    """

    def __init__(
        self,
        gate: Gate,
        experts: Experts,
        *,
        shared: Experts | None = None,
        norm: nn.Module | None = None,
        dispatch: DispatchOptions = AUTO,
        dropout: float = 0,
    ):
        super().__init__()
        self.norm = norm
        self.gate = gate
        self.experts = experts
        self.shared = shared
        self.dispatch = dispatch
        self.dropout = dropout
        self.place: ExpertPlace | None = None
        self.listener: Callable[[Routing], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        seen_TD = x.reshape(-1, x.shape[-1])
        x_TD = seen_TD if self.norm is None else self.norm(x).reshape(seen_TD.shape)
        features_TER = self.experts.features(x_TD) if self.gate.scores_features else None
        routing = self.gate(seen_TD, features_TER, x.shape[:-1])
        if self.listener is not None and not in_backward():
            self.listener(routing)
        y_TD = dispatch(self.dispatch, x_TD, features_TER, routing, self.experts, self.place)
        if self.shared is not None:
            y_TD = y_TD + self.shared.everywhere(x_TD)
        return functional.dropout(y_TD, self.dropout, self.training).reshape(x.shape)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles have no listener, so a model can be copied while it is recorded."""
        return {**self.__dict__, "listener": None}

    def hold_part(self, place: ExpertPlace) -> None:
        """Keep the weights of the experts that lie here alone, in new parameters. Features that the gate scores every
        token by stay whole. From now on all processes of the place's group run the layer together.

        Raises `ValueError` where the experts cannot be dealt out.
        """
        parts, count = place.parts, self.experts.num_experts
        if count % parts:
            raise ValueError(f"{count} experts cannot be held by {parts} processes; allowed: a divisor of {count}")
        for parameter_owner, name, parameter in self.pair_parameters():
            held = parameter.detach().chunk(parts)[place.part].clone()
            setattr(parameter_owner, name, nn.Parameter(held, requires_grad=parameter.requires_grad))
        self.place = place

    def pair_parameters(self) -> list[tuple[nn.Module, str, nn.Parameter]]:
        """What only active pairs use, the parameters whose first dimension is experts: module, name there, itself."""
        return [
            (layer, name, parameter) for layer in self._pair_layers() for name, parameter in layer.named_parameters()
        ]

    @property
    def flops_per_pair(self) -> int:
        """FLOPs of one token in one expert, 2 a multiply-add; activations and biases are not counted."""
        return 2 * sum(layer.size for layer in self._pair_layers())

    @property
    def params_per_pair(self) -> int:
        """Parameters that one active pair touches."""
        return sum(parameter[0].numel() for layer in self._pair_layers() for parameter in layer.parameters())

    @property
    def flops_per_token(self) -> int:
        """FLOPs spent on every token whatever its routing: the gate, the features it scores by, shared experts."""
        spent = self.gate.flops_per_token
        if self.gate.scores_features:
            spent += 2 * sum(layer.weight.numel() for layer in self.experts.feature_layers())
        if self.shared is not None:
            spent += 2 * sum(layer.weight.numel() for layer in self.shared.all_layers())
        return spent

    def _pair_layers(self) -> list[StackedLinear]:
        """The products computed for active pairs only."""
        return self.experts.layers() if self.gate.scores_features else self.experts.all_layers()


class DenseExperts(nn.Module):
    """Experts for every token and no gate: a dense baseline with the experts of an MoE row.

    dropout: as in `MoE`.
    """

    def __init__(self, experts: Experts, *, dropout: float = 0):
        super().__init__()
        self.experts = experts
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        y_TD = self.experts.everywhere(x.reshape(-1, x.shape[-1]))
        return functional.dropout(y_TD, self.dropout, self.training).reshape(x.shape)


def in_backward() -> bool:
    """Whether autograd is running a backward pass in this thread (torch's own checkpointing asks the same way)."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def moe_layers(model: nn.Module) -> Iterator[tuple[str, MoE]]:
    """The MoE layers of a model with their qualified names, in order."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, MoE))
