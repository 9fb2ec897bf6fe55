"""What processes agree on between steps, so that none goes on, stops or waits alone.

Every process calls `agree` at the same places, whatever has happened to it: a loader that failed, a signal, a loss that
is no number. One small exchange between the hosts (gloo, also where the devices use nccl) tells all of them the same.
"""

from __future__ import annotations

import math
import signal
from typing import NamedTuple

import torch
import torch.distributed as dist

from .distributed import OtherProcessError, Processes
from .interrupt import SIGNALS


class Verdict(NamedTuple):
    """The same on every process. interrupt: the name of a signal that one of them got, or None. failed: whether one of
    them met an error. finite: whether all numbers of all were. loss: the mean over processes, where it is finite.
    """

    interrupt: str | None
    failed: bool
    finite: bool
    loss: float


def agree(
    processes: Processes,
    *,
    interrupt: int = 0,
    error: Exception | None = None,
    loss: float = 0.0,
    gradient_norm: float = 0.0,
) -> Verdict:
    """What all processes make of what each of them has met.

    interrupt: the number of a signal, or 0. Raises `OtherProcessError` if one is gone or does not answer.
    """
    finite = math.isfinite(loss) and math.isfinite(gradient_norm)
    told = [*(interrupt == number for number in SIGNALS), error is not None, not finite, loss if finite else 0.0]
    if processes.world > 1:
        flags = torch.tensor(told, dtype=torch.float64)
        dist.all_reduce(flags)
        told = flags.tolist()
    *interrupts, failed, not_finite, loss_sum = told
    names = [signal.Signals(number).name for number, count in zip(SIGNALS, interrupts, strict=True) if count]
    mean = loss_sum / processes.world if not not_finite else math.nan
    return Verdict(next(iter(names), None), bool(failed), not not_finite, mean)


def failure_of_all(processes: Processes, error: Exception | None) -> Exception:
    """What each process is to raise once they have agreed that one failed: its own error, or what another one's is."""
    told: list[str | None] = [None] * processes.world
    if processes.world > 1:
        dist.all_gather_object(told, None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        return error
    rank, text = next((rank, text) for rank, text in enumerate(told) if text is not None)
    return OtherProcessError(f"process {rank} of {processes.world} failed: {text}")
