"""Processes: who this one is, and where they wait for each other. `torchrun` sets the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from vmoe.moe.collective import is_distributed

from .heap import keep_freed_memory
from .warn import first_line

TIMEOUT = 1800.0  # seconds


class OtherProcessError(ConnectionError):
    """This process cannot go on because of another one."""


@dataclass(frozen=True)
class Processes:
    """This process among all (rank of world), among those on this machine (local), and its device."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


@contextmanager
def start_processes(device: str, *, timeout: float = TIMEOUT) -> Iterator[Processes]:
    """Join the process group that torchrun describes, if any, and leave it at the end.

    device: ``cpu``, ``cuda`` or ``auto``. GPUs speak nccl with each other, and hosts gloo.
    timeout: the longest, in seconds, that processes wait for each other.
    Raises `ValueError`: cuda is asked for and torch sees none. Within, an exchange that fails because another process
    is gone or does not answer raises `OtherProcessError`.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device is 'cuda', but torch sees no CUDA device; allowed here: cpu, auto")
    on_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    chosen = torch.device("cuda", local_rank) if on_cuda else torch.device("cpu")
    if on_cuda:
        torch.cuda.set_device(chosen)
    else:
        keep_freed_memory()
    if "WORLD_SIZE" not in os.environ:
        yield Processes(0, 1, 0, 1, chosen)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=timedelta(seconds=timeout))
    try:
        local_world = int(os.environ["LOCAL_WORLD_SIZE"])
        yield Processes(dist.get_rank(), dist.get_world_size(), local_rank, local_world, chosen)
    except RuntimeError as error:
        if not is_of_an_exchange(error):
            raise
        raise OtherProcessError(
            f"another process of this run is gone, or did not answer for {timeout:g} s: {first_line(error)}"
        ) from error
    finally:
        dist.destroy_process_group()


def is_of_an_exchange(error: RuntimeError) -> bool:
    """Whether an exchange between processes failed; gloo has no class of its own for that."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def barrier() -> None:
    """Wait until every process is here."""
    if is_distributed():
        dist.barrier()
