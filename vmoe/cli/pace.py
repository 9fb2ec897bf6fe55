"""How fast a run goes here: its own training steps and evaluation batches, taken for some seconds before it starts."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import nn

from vmoe.data.stages import Rate
from vmoe.moe.collective import largest_over_processes
from vmoe.train.distributed import Processes
from vmoe.train.evaluate import evaluate
from vmoe.train.loop import StoppedBetweenSteps, evaluated_model, steps_until
from vmoe.train.memory import GIB, peak, reserved, start_of_peak
from vmoe.train.meter import Meter, SinceLog
from vmoe.train.spikes import LossSpike
from vmoe.train.state import Parts, TrainState

from .plan import train_flops_between

WARM_UP = 2  # steps that are not counted, at least: they compile, find kernels and fill memory
WARMING = 0.25  # of the seconds, at least, on top: a loader has read ahead while the first step compiled
GROUPS = 20  # of steps that are timed together, so that a GPU need not be waited for after each
EVALUATION = 0.5  # of the seconds, for evaluation batches, on top


@dataclass(frozen=True)
class Steps:
    """Training steps that were timed. warm_up: steps before them. seconds: of all of them. rate: steps a second,
    quartiles over groups. since: what the log would say of them. flops: of one step, at the routing it had;
    planned_flops: at the density that the gate aims at. shapes: of the samples.
    before, peak, reserved: bytes of memory of the process that takes most, see `vmoe.train.memory`.
    """

    number: int
    warm_up: int
    seconds: float
    rate: Rate
    since: SinceLog
    flops: float
    planned_flops: float
    shapes: tuple[torch.Size, ...]
    before: int
    peak: int
    reserved: int | None

    @property
    def each(self) -> float:
        """Seconds of a step, their mean."""
        return self.seconds / self.number


@dataclass(frozen=True)
class EvaluationPace:
    """seconds: that a whole evaluation takes, measured where `batches` are all there are, else as far as these say.
    units_per_second: of the whole, over all processes.
    """

    batches: int
    of: int
    seconds: float
    units_per_second: float


def time_steps(state: TrainState, parts: Parts, seconds: float) -> Steps:
    """Train for about so many seconds, after a while to warm up. Every process takes part, and none writes.

    The state is another one afterwards. Raises what a run would end with.
    """
    processes, network = parts.processes, parts.layout.network(state.model)
    state.model.train()
    meter = Meter(parts, state.model)
    before = start_of_peak(processes.device)
    first, spent = state.step, state.train_flops
    rates: list[float] = []
    with closing(_endless(state, parts, network, meter)) as steps:
        warming = Watch(processes)
        while state.step < first + WARM_UP or warming.seconds() < WARMING * seconds:
            next(steps)
        early, warm_up, begin, size = meter.since_log(), state.step - first, state.step, 1
        whole = Watch(processes)
        while len(rates) < 2 or whole.seconds() < seconds:
            group = Watch(processes)
            for _ in range(size):
                next(steps)
            took = group.seconds()
            rates.append(size / took)
            size = max(1, min(2 * size, round(size * seconds / GROUPS / took)))
        lasted = whole.seconds()
    since, shapes = meter.since_log(), tuple(meter.samples)
    meter.settle(state)
    on_gpu = processes.device.type == "cuda"
    most = int(max(early.memory, since.memory) * GIB) if on_gpu else peak(processes.device)
    before, most, held = largest_over_processes([before, most, reserved(processes.device) or 0], processes.device)
    return Steps(
        number=state.step - begin,
        warm_up=warm_up,
        seconds=lasted,
        rate=Rate.of(rates),
        since=since,
        flops=(state.train_flops - spent) / (state.step - first),
        planned_flops=train_flops_between(first, state.step, parts) / (state.step - first),
        shapes=shapes,
        before=before,
        peak=most,
        reserved=held or None,
    )


def _endless(state: TrainState, parts: Parts, network: nn.Module, meter: Meter) -> Generator[None, None, None]:
    """Steps, epoch after epoch."""
    while True:
        end = state.step + parts.steps_per_epoch - state.position % parts.steps_per_epoch
        try:
            yield from steps_until(end, state, parts, network, meter)
        except StoppedBetweenSteps as stopped:
            raise stopped.cause from None
        except LossSpike:  # nothing is learned here
            state.recent_losses = []


def time_evaluation(state: TrainState, parts: Parts, seconds: float) -> EvaluationPace:
    """Evaluate twice as many batches each time, until that takes so long or all are done.

    What the last batches took is what the others are taken to take; the rest is the start of an evaluation.
    """
    model, loader = evaluated_model(state, parts), parts.val_loader
    (whole,) = largest_over_processes([len(loader)], parts.processes.device)

    def once(batches: int) -> float:
        watch = Watch(parts.processes)
        evaluate(
            model,
            loader,
            parts.task,
            parts.processes,
            parts.precision,
            batches=batches,
            together=parts.layout.forwards_together,
        )
        return watch.seconds()

    once(1)  # compiles, and finds kernels
    batches, took = 1, once(1)
    fewer, less = 0, 0.0
    while batches < whole and took < seconds:
        fewer, less = batches, took
        batches = min(2 * batches, whole)
        took = once(batches)
    each = (took - less) / (batches - fewer) if took > less else took / batches
    expected = took + (whole - batches) * each
    return EvaluationPace(batches, whole, expected, loader.units / expected)


class Watch:
    """Seconds since it was made, on which all processes agree: the most that any of them counts."""

    def __init__(self, processes: Processes):
        self.processes = processes
        wait_for(processes.device)
        self.start = time.perf_counter()

    def seconds(self) -> float:
        """Once every device has done what was left to it."""
        wait_for(self.processes.device)
        took = time.perf_counter() - self.start
        return largest_over_processes([round(took * 1e9)], self.processes.device)[0] / 1e9


def wait_for(device: torch.device) -> None:
    """Until it has done what was left to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
