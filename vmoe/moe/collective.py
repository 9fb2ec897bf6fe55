"""The collectives that counting needs, alike with and without a process group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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


def sum_together(tensors: Sequence[Tensor]) -> None:
    """Sum each tensor over all processes, in place and in one exchange. They are of one type and on one device."""
    if not is_distributed() or not tensors:
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(together)
    for tensor, summed in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def largest_over_processes(numbers: Sequence[int], device: torch.device) -> list[int]:
    """The largest value of each number over all processes; all give equally many."""
    if not is_distributed():
        return list(numbers)
    largest = torch.tensor(numbers, dtype=torch.int64, device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return [int(number) for number in largest]
