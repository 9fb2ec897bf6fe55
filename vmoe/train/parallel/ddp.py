"""A copy of the model on each process, whose gradients are averaged while the backward runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .experts import DealtExperts
from .layout import Layout


class Replicated(Layout):
    """`DistributedDataParallel`, which leaves dealt-out experts aside."""

    def __init__(self, device: torch.device, *, compiled: bool = False, experts: DealtExperts | None = None):
        super().__init__(compiled=compiled, experts=experts)
        self.device = device

    def __str__(self) -> str:
        return "ddp" if self.experts is None else f"ddp, experts over {self.experts.count} processes"

    def network(self, model: nn.Module) -> nn.Module:
        network = super().network(model)
        if self.experts is not None:
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, list(self.experts.names))
        return DistributedDataParallel(network, device_ids=[self.device] if self.device.type == "cuda" else None)

    def no_sync(self, network: nn.Module) -> AbstractContextManager[None]:
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()
