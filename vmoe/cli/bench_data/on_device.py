"""What happens to a batch once it is loaded: the config's own model and task, on one batch of its data."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vmoe.config import RunConfig
from vmoe.data.stages import Rate, time_work
from vmoe.moe import evaluating
from vmoe.train.distributed import Processes
from vmoe.train.meter import Meter
from vmoe.train.precision import autocast
from vmoe.train.runfolder import RunFolder
from vmoe.train.state import Parts, TrainState
from vmoe.train.step import train_step

from ..pace import wait_for
from ..tasks import Data, assembly_of
from ..train import build_on

logger = logging.getLogger(__name__)

FIRST = 2  # samples of the first step on the model, from which it grows
ROOM = 7  # steps that the time should have room for
GAIN = 1.1  # by so much the rate grows from a size to twice that, or it is taken to grow no more
MANY = 256  # samples on their way to the model, at most

Work = Callable[[], object]


class Stage(NamedTuple):
    """A row of the table. place: the loader's name, or the device."""

    place: str
    name: str
    rate: Rate


class OnDevice:
    """most: samples of a micro-batch of a run. The model is built when it is to be timed."""

    def __init__(self, config: RunConfig, data: Data, here: Processes, *, most: int):
        self.config = config
        self.data = data
        self.here = here
        self.device = here.device
        self.most = most
        self.task = assembly_of(config).task(data.entry, data.val, here.device)
        with closing(data.train.epoch(0)) as batches:
            self.batch = next(batches)

    @cached_property
    def built(self) -> tuple[TrainState, Parts]:
        """What `vmoe train` would build, but for trained weights, which cost the same."""
        fresh = self.config.model.model_copy(update={"pretrained": False, "weights": None})
        quiet = self.config.train.model_copy(update={"probe_samples": 0, "tensorboard": False, "wandb": None})
        config = self.config.model_copy(update={"model": fresh, "train": quiet})
        return build_on(self.data, config, self.here, RunFolder(config.output, writes=False))

    def way_to_the_model(self, blank: nn.Module | None, seconds: float) -> list[Stage]:
        """Copying to the device, where it has memory of its own; what the task does to samples before the network.

        blank: see `Subject.blank`. seconds: for each.
        """
        task, size, stages = self.task, min(self.most, MANY), []
        batch, units = self.batch_of(size), size * task.units_per_sample
        if self.device.type == "cuda":
            stages.append(self.stage("copy", lambda: self.moved(batch), units, seconds))
        if blank is not None:
            network, (inputs, targets) = blank.to(self.device), self.moved(batch)
            work = torch.no_grad()(lambda: task.training_loss(network, inputs, targets))
            stages.append(self.stage("normalise, augment", work, units, seconds))
        return stages

    def model(self, seconds: float, *, forward_only: bool) -> Stage:
        """Training steps, or forwards alone, on as many samples of a micro-batch as the time allows.

        Raises `ValueError`: a micro-batch does not fit into the device's memory.
        """
        work, name, times = (
            (self.forward, "forward", 1) if forward_only else (self.step, "training step", self.config.train.accumulate)
        )
        try:
            size = self.fitting(work, seconds)
            samples, units = times * size, times * size * self.task.units_per_sample
            return self.stage(f"{name}, {samples} {self.task.SAMPLE}s", work(size), units, seconds)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"data.batch_size makes batches of {self.most} {self.task.SAMPLE}s on a process, for which"
                f" {self.device} has too little memory ({error}); allowed: fewer, or a larger train.accumulate"
            ) from None

    def step(self, size: int) -> Work:
        """A training step on so many samples a micro-batch, as `vmoe train` takes it."""
        state, parts = self.built
        state.model.train()
        network = parts.layout.network(state.model)
        batches, meter = repeat(self.batch_of(size)), Meter(parts, state.model)
        return lambda: train_step(state, parts, network, batches, meter)

    def forward(self, size: int) -> Work:
        """The model on so many samples, as evaluation runs it."""
        (state, parts), inputs = self.built, self.moved(self.batch_of(size))[0]

        @torch.no_grad()
        def work() -> None:
            with evaluating(state.model), autocast(self.device, parts.precision):
                self.task.forward(state.model, self.task.prepare(inputs))

        return work

    def fitting(self, work: Callable[[int], Work], seconds: float) -> int:
        """The number of samples, at most a micro-batch, from which on the rate hardly grows, or as many as the time
        allows: a few samples alone cost what a step costs besides them.

        It is found by doubling; a compiled model is not made to compile for each size, and gets the whole batch.
        """
        size, before = (self.most if self.config.train.compile else min(self.most, FIRST)), float("inf")
        while size < self.most:
            took = self.shortest(work(size))
            grows = before > took / 2 * GAIN  # twice as many samples in less than twice the time
            if took > seconds / 2 or (2 * ROOM * took > seconds and not grows):
                break
            size, before = min(self.most, 2 * size), took
        return size

    def shortest(self, work: Work) -> float:
        """Seconds of the faster one of two repeats, after the first: memory and kernels come with that."""
        work()
        found = []
        for _ in range(2):
            self.finish()
            start = time.perf_counter()
            work()
            self.finish()
            found.append(time.perf_counter() - start)
        return min(found)

    def batch_of(self, size: int) -> tuple[Tensor, Tensor]:
        """So many samples in CPU memory, those of the batch again and again."""
        inputs, targets = (tensor[torch.arange(size) % len(tensor)] for tensor in self.batch)
        return (inputs.pin_memory(), targets.pin_memory()) if self.device.type == "cuda" else (inputs, targets)

    def moved(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        return inputs, targets

    def finish(self) -> None:
        wait_for(self.device)

    def stage(self, name: str, work: Work, units: int, seconds: float) -> Stage:
        rate = time_work(work, units, seconds, finish=self.finish)
        logger.info("%s: %s, %s %ss/s", self.device.type, name, f"{rate.median:,.0f}", self.task.UNIT)
        return Stage(self.device.type, name, rate)
