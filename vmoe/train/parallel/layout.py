"""A layout: what training has to know of how the model lies on the processes.

A parameter lies whole on each process, is one of the experts' that some processes hold between them, or is cut into
parts by FSDP (a DTensor). This file knows all three, so that norms, clipping and checkpoints are the same whatever the
mixture; a subclass says how gradients meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor, distribute_tensor

from .experts import DealtExperts


class Layout:
    """Everything on one process, or as the subclass says.

    compiled: whether training calls the model by torch.compile. experts: over which processes they are dealt out.
    forwards_together: whether a forward exchanges something, so that all processes run equally many.
    uniform: whether all tensors of a model are of one kind, as torch's functions on lists of tensors need it.
    """

    forwards_together = False
    uniform = True

    def __init__(self, *, compiled: bool = False, experts: DealtExperts | None = None):
        self.compiled = compiled
        self.experts = experts
        self.sharded: dict[str, DTensor] = {}  # for its mesh, placements and shape
        if experts is not None:
            self.forwards_together = True

    def __str__(self) -> str:
        return "whole"

    def place(self, model: nn.Module) -> nn.Module:
        """Bring a whole model, the same on all processes, into this layout, in place; before it is given to an
        optimizer. A copy of a placed model is made before it is placed.
        """
        if self.experts is not None:
            self.experts.deal_out(model)
        return model

    def network(self, model: nn.Module) -> nn.Module:
        """What training calls in place of the placed model."""
        network: Any = torch.compile(model) if self.compiled else model
        return network

    def no_sync(self, network: nn.Module) -> AbstractContextManager[None]:
        """Gradients stay on this process within, as far as that saves something."""
        return nullcontext()

    def reduce_gradients(self, model: nn.Module) -> None:
        """Once after the backward of a step's last micro-batch: makes gradients those of the mean over all processes
        where the backward itself has not.
        """
        if self.experts is not None:
            self.experts.reduce_gradients(model)

    def gradient_norm(self, model: nn.Module) -> Tensor:
        """The L2 norm of all gradients, a scalar on the device: the same on every process, inf or nan on all of them
        where it is on one.
        """
        kinds = self._gradients(model)
        if not any(group is not None for _, group in kinds):
            return nn.utils.get_total_norm(kinds[0][0])
        squares = []
        for gradients, group in kinds:
            square = nn.utils.get_total_norm(gradients).double().square() if gradients else None
            if group is not None:
                square = torch.zeros((), dtype=torch.float64, device=self._device(model)) if square is None else square
                torch.distributed.all_reduce(square, group=group)
            squares += [] if square is None else [square]
        return torch.stack(squares).sum().sqrt().float()

    def clip(self, model: nn.Module, norm: Tensor, limit: float) -> None:
        """Scale all gradients down to this norm where theirs is more, as `torch.nn.utils.clip_grad_norm_` does."""
        scale = (limit / (norm + 1e-6)).clamp(max=1)
        for gradients, _ in self._gradients(model):
            if gradients:
                torch._foreach_mul_(gradients, scale)

    def _gradients(self, model: nn.Module) -> list[tuple[list[Tensor], ProcessGroup | None]]:
        """What this process has of the gradients, by the processes that hold them between them; None: each has all."""
        whole: list[Tensor] = []
        dealt: list[Tensor] = []
        sharded: list[Tensor] = []
        names = self.experts.names if self.experts is not None else frozenset()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                kind = sharded if isinstance(parameter.grad, DTensor) else dealt if name in names else whole
                kind.append(local(parameter.grad))
        kinds: list[tuple[list[Tensor], ProcessGroup | None]] = [(whole, None)]
        if self.experts is not None:
            kinds.append((dealt, self.experts.place.group))
        if self.sharded:
            kinds.append((sharded, next(iter(self.sharded.values())).device_mesh.get_group()))
        return kinds

    @staticmethod
    def _device(model: nn.Module) -> torch.device:
        return next(model.parameters()).device

    # --- checkpoints -------------------------------------------------------------------------------------

    def spreads(self, name: str) -> bool:
        """Whether other processes hold other parts of this parameter."""
        return name in self.sharded or (self.experts is not None and name in self.experts.names)

    def whole(self, name: str, tensor: Tensor) -> Tensor:
        """A copy on the CPU of the whole of a parameter, or of something of its shape such as optimizer state, of which
        this process gives its part. All processes call it for all that is spread.
        """
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        elif self.experts is not None and self.experts.is_part(name, tensor):
            tensor = self.experts.gather(tensor)
        return tensor.detach().to("cpu", copy=True)

    def part(self, name: str, whole: Tensor) -> Tensor:
        """What this process holds of a whole parameter, or of something of its shape; others stay as they are."""
        like = self.sharded.get(name)
        if like is not None and like.shape == whole.shape:
            on_device = whole.to(like.device)
            return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)
        if self.experts is not None and self.experts.is_whole(name, whole):
            return self.experts.part(whole)
        return whole


def local(tensor: Tensor) -> Tensor:
    """What this process holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def parameters_here(model: nn.Module) -> int:
    """How many numbers of the model's parameters this process holds."""
    return sum(local(parameter).numel() for parameter in model.parameters())


def names_of(model: nn.Module) -> Mapping[nn.Parameter, str]:
    """The name of each parameter; the first, if it has several."""
    return {parameter: name for name, parameter in model.named_parameters()}
