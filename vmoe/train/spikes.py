"""Loss spikes: a step whose loss is far above those before it, and the way back to before it.

The run goes back to its last checkpoint and on from there with the data after the spike, as PaLM's did (Chowdhery et
al. 2022, arXiv 2204.02311, section 5.1): the same weights over the same data would meet the same spike.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median

from .distributed import barrier
from .state import Parts, TrainState

ENOUGH = 20  # losses before it, for one to be called a spike


class LossSpike(Exception):  # noqa: N818  # no error yet
    """step: the number, from 0, of the step that was not taken. loss: its mean over processes."""

    def __init__(self, step: int, loss: float):
        super().__init__(f"step {step + 1}: the loss is {loss:g}")
        self.step = step
        self.loss = loss


def is_spike(loss: float, recent: Sequence[float], factor: float | None) -> bool:
    """Whether the loss is more than so many times the median of the losses before it, if there are enough of them."""
    return factor is not None and len(recent) >= ENOUGH and loss > factor * median(recent)


def go_back(state: TrainState, parts: Parts, spike: LossSpike) -> None:
    """Load the last checkpoint of the run into the state, and leave out the data between it and the spike.

    Raises `FloatingPointError` where there is none, or the run has gone back train.max_returns times.
    """
    folder, allowed = parts.folder, parts.config.train.max_returns
    reached, returns = state.position, state.returns + 1
    found = f"{spike}, more than train.spike_factor {parts.config.train.spike_factor:g} times what it was before"
    if returns > allowed:
        raise FloatingPointError(
            f"{found}; the run has gone back {allowed} times already, which is train.max_returns;"
            f" {folder.describe_last()}. Try a smaller optimizer.lr or an optimizer.clip_grad"
        )
    folder.checkpoints.settle()
    barrier()  # what the first process had to write is there for all
    newest = folder.checkpoints.newest()
    if newest is None:
        raise FloatingPointError(f"{found}, and {folder.describe_last()} to go back to. Try a smaller optimizer.lr")
    path, checkpoint = newest
    state.optimizer.zero_grad()
    state.load(checkpoint, parts.layout)
    state.left_out_data += reached + 1 - state.position
    state.returns = returns
    folder.rewind(step=state.step, evaluated=state.evaluated)
    if parts.processes.first:
        print(
            f"{found}: back to {path}, step {state.step}, and on with the data after it (return {returns} of at most"
            f" {allowed})",
            file=sys.stderr,
            flush=True,
        )
