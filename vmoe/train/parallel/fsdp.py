"""Blocks cut into parts (FSDP2): each process holds an equal part of every weight, gathers a block's while it runs, and
gets its part of the averaged gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ..distributed import Processes
from .experts import DealtExperts
from .layout import Layout

Blocks = Callable[[nn.Module], Sequence[nn.Module]]


class Sharded(Layout):
    """`fully_shard` of each block, and of the rest of the model. Weights, gradients and their sums are float32; what
    autocast casts is the same as without.

    blocks: gives those of a model. Dealt-out experts are left aside. Gradients of micro-batches are summed in parts, so
    each of them is exchanged: to keep them until the last would take the memory of a whole model.
    """

    forwards_together = True
    uniform = False

    def __init__(self, processes: Processes, blocks: Blocks, *, experts: DealtExperts | None = None):
        super().__init__(experts=experts)
        self.mesh = init_device_mesh(processes.device.type, (processes.world,))
        self.blocks = blocks

    def __str__(self) -> str:
        return "fsdp" if self.experts is None else f"fsdp, experts over {self.experts.count} processes"

    def place(self, model: nn.Module) -> nn.Module:
        super().place(model)
        aside = set() if self.experts is None else set(self.experts.parameters(model))
        # The root too gives its weights back after a forward, or evaluation would leave them gathered.
        for module in (*self.blocks(model), model):
            fully_shard(module, mesh=self.mesh, reshard_after_forward=True, ignored_params=aside)
        named = model.named_parameters(remove_duplicate=False)
        detached = ((name, parameter.detach()) for name, parameter in named)
        self.sharded = {name: tensor for name, tensor in detached if isinstance(tensor, DTensor)}
        return model
