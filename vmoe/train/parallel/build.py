"""Which layout a config and the processes of its run come to."""

from __future__ import annotations

from vmoe.config import ParallelConfig

from ..distributed import Processes
from .ddp import Replicated
from .experts import DealtExperts
from .fsdp import Blocks, Sharded
from .layout import Layout


def build_layout(config: ParallelConfig, processes: Processes, blocks: Blocks, *, compiled: bool = False) -> Layout:
    """The layout; one process has the whole model, whatever the config says.

    blocks: gives the blocks of a model, which FSDP cuts one by one. compiled: whether training calls the model by
    torch.compile. Raises `ValueError` for a number of processes that experts cannot be dealt out over.
    """
    world = processes.world
    if world == 1:
        return Layout(compiled=compiled)
    if world % config.experts:
        divisors = ", ".join(str(each) for each in range(1, world + 1) if world % each == 0)
        raise ValueError(f"parallel.experts is {config.experts} with {world} processes; allowed: {divisors}")
    experts = DealtExperts(config.experts, processes) if config.experts > 1 else None
    if config.strategy == "fsdp":
        return Sharded(processes, blocks, experts=experts)
    return Replicated(processes.device, compiled=compiled, experts=experts)
