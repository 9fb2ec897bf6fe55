"""One optimizer step: its micro-batches' gradients, what all processes make of them, and the update or none."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from timm.utils import random_seed
from torch import Tensor, nn

from vmoe.moe import record

from .agreement import Verdict, agree
from .loaders import Batch
from .meter import Meter
from .precision import autocast
from .state import Parts, TrainState


class Ahead(NamedTuple):
    """The micro-batches of the step to come, or the error met in reading them."""

    batches: Sequence[Batch] = ()
    error: Exception | None = None


class Found(NamedTuple):
    """Of a step's micro-batches on this process, on the device. loss (): their mean, balance included. norm (): of the
    gradients over all processes.
    """

    loss: Tensor
    norm: Tensor

    def read(self) -> tuple[float, float]:
        """Both as numbers; here the device is waited for."""
        loss, norm = torch.stack([self.loss, self.norm.to(self.loss)]).tolist()
        return loss, norm


def read_ahead(batches: Iterator[Batch], meter: Meter, count: int) -> Ahead:
    """The next micro-batches. An error is kept for all processes to agree on."""
    try:
        return Ahead([meter.read(batches) for _ in range(count)])
    except StopIteration:
        return Ahead(error=RuntimeError("the loader ended within its epoch"))
    except Exception as error:  # whatever it is, the other processes must not wait for this one
        return Ahead(error=error)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed what mixup, erasing, dropout and random routing draw from, by step and process alone: a run that goes on
    from any step draws what it would have drawn.
    """
    random_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]))


def train_step(state: TrainState, parts: Parts, network: nn.Module, batches: Iterator[Batch], meter: Meter) -> None:
    """A whole step, on the micro-batches that come next."""
    ahead = read_ahead(batches, meter, parts.config.train.accumulate)
    if ahead.error is not None:
        raise ahead.error
    found = compute_gradients(state, parts, network, ahead.batches, meter)
    loss, norm = found.read()
    conclude(state, parts, found, agree(parts.processes, loss=loss, gradient_norm=norm), meter)


def compute_gradients(
    state: TrainState, parts: Parts, network: nn.Module, batches: Sequence[Batch], meter: Meter
) -> Found:
    """Forward and backward of a step's micro-batches, whose gradients add up to that of their mean loss."""
    loss = torch.zeros((), device=parts.processes.device)
    for number, batch in enumerate(batches, 1):
        with nullcontext() if number == len(batches) else parts.layout.no_sync(network):
            loss += micro_step(state, parts, network, batch, meter) / len(batches)
    parts.layout.reduce_gradients(state.model)
    state.scaler.unscale_(state.optimizer)
    return Found(loss, parts.layout.gradient_norm(state.model))


def micro_step(state: TrainState, parts: Parts, network: nn.Module, batch: Batch, meter: Meter) -> Tensor:
    """Forward and backward of one micro-batch; returns its loss, balance included, without gradient."""
    device = parts.processes.device
    inputs, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
    with record(state.model) as routings, autocast(device, parts.precision):
        task_loss = parts.task.training_loss(network, inputs, targets)
    balance_loss = state.balance(routings)
    loss = task_loss + balance_loss
    state.scaler.scale(loss / parts.config.train.accumulate).backward()
    meter.add(task_loss, balance_loss, routings, shape=inputs.shape, step=state.step)
    return loss.detach()


def conclude(state: TrainState, parts: Parts, found: Found, verdict: Verdict, meter: Meter) -> None:
    """Take the step by the gradients that were computed, or leave it out where a number was not finite.

    Raises `FloatingPointError` once that has happened train.max_nonfinite times in a row, and once more.
    """
    meter.close_step(found.norm, taken=verdict.finite)
    if verdict.finite:
        update(state, parts, found.norm)
    else:
        leave_out(state, parts, found)


def update(state: TrainState, parts: Parts, norm: Tensor) -> None:
    """Update the weights, then everything that follows the weights: controller, schedule, moving average.

    norm (): of the gradients, which are no longer scaled.
    """
    clip = parts.config.optimizer.clip_grad
    if clip is not None:
        parts.layout.clip(state.model, norm, clip)
    parts.schedule.step_update(state.step)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    state.balance.step()
    state.step += 1
    state.nonfinite = 0
    if state.ema is not None:
        state.ema.update(state.model, step=state.step)


def leave_out(state: TrainState, parts: Parts, found: Found) -> None:
    """Go on to the next step without an update; only the scale of the loss follows from this one."""
    loss, norm = found.read()
    state.scaler.update()
    state.optimizer.zero_grad()
    state.balance.forget()
    state.step += 1
    state.nonfinite += 1
    what = f"step {state.step}: the loss is {loss:g}, the norm of its gradient {norm:g} on this process"
    allowed = parts.config.train.max_nonfinite
    if state.nonfinite > allowed:
        raise FloatingPointError(
            f"{what}; {state.nonfinite} step{'s' * (state.nonfinite > 1)} in a row had no finite loss and gradient on"
            f" every process, and train.max_nonfinite allows {allowed}; {parts.folder.describe_last()}. Try a smaller"
            " optimizer.lr, an optimizer.clip_grad, or train.precision=float32"
        )
    if parts.processes.first:
        print(f"{what}: no update ({state.nonfinite} of at most {allowed} in a row)", file=sys.stderr, flush=True)
