"""The one collective that counting needs, alike with and without a process group."""

from __future__ import annotations

import torch.distributed
from torch import Tensor


def is_distributed() -> bool:
    """Whether this process belongs to a group of processes."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in place."""
    if is_distributed():
        torch.distributed.all_reduce(tensor)
    return tensor
