"""What a run is made of: the state that training changes, and the parts that it does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from vmoe.config import RunConfig
from vmoe.moe import Balance

from .cost import Cost
from .distributed import Processes
from .interrupt import Interrupts
from .loaders import Loader
from .parallel import Layout, gather_optimizer, load_optimizer, load_weights
from .precision import choose_precision
from .probe import Decisions, Probe
from .runfolder import RunFolder
from .snapshot import snapshot
from .task import Task


@dataclass
class TrainState:
    """Everything that training changes. step: optimizer steps so far. evaluated: the step of the latest evaluation.
    best: `Scores.rank` of the best one. probed: what the latest evaluation decided for the probe; changed: the
    share of it that the one before had decided otherwise, by layer.
    nonfinite: steps in a row that were left out up to now. left_out_data: steps whose data were left out for a loss
    spike. returns: how often the run has gone back for one. recent_losses: of the latest steps, means over processes.
    line: what the next line of the log has so far, of a run that goes on (`Meter.state_dict`).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    balance: Balance
    ema: ModelEmaV3 | None
    scaler: torch.amp.GradScaler
    step: int = 0
    evaluated: int = 0
    best: float = -math.inf
    train_flops: int = 0
    train_seconds: float = 0.0
    train_units: int = 0
    nonfinite: int = 0
    left_out_data: int = 0
    returns: int = 0
    recent_losses: list[float] = field(default_factory=list)
    probed: Decisions = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    line: dict[str, Any] | None = None

    COUNTERS = (
        *("step", "evaluated", "best", "train_flops", "train_seconds", "train_units"),
        *("nonfinite", "left_out_data", "returns", "recent_losses", "changed"),
    )
    HISTORY = 100  # losses that are remembered

    def state_dict(self, layout: Layout, *, first: bool) -> dict[str, Any]:
        """What a resumed run needs besides the weights, in a copy that further training leaves as it is. All processes
        ask; first: whether this one keeps it whole, while the others only give what they hold.
        """
        counters = {name: getattr(self, name) for name in self.COUNTERS}
        alike = {
            "balance": self.balance.state_dict(),
            "scaler": self.scaler.state_dict(),
            "probed": self.probed,
            **counters,
        }
        return {"optimizer": gather_optimizer(self.optimizer, self.model, layout, first=first), **snapshot(alike)}

    def load(self, checkpoint: dict[str, Any], layout: Layout) -> None:
        """Go on from a checkpoint of the same config, whatever layout it was written in. Raises `ValueError` for one
        that cannot be trained on.
        """
        if missing := {*self.COUNTERS, "probed", "scaler", "line"} - set(checkpoint["training"]):
            raise ValueError(
                f"the checkpoint lacks {', '.join(sorted(missing))}: it is of an earlier version of vmoe, or made by"
                " vmoe upcycle; allowed: model.weights, which starts a new run from it"
            )
        self._check(checkpoint["training"])
        load_weights(self.model, checkpoint["weights"], layout)
        if self.ema is not None:
            load_weights(self.ema.module, checkpoint["ema"], layout)
        training = checkpoint["training"]
        load_optimizer(self.optimizer, self.model, training["optimizer"], layout)
        self.balance.load_state_dict(training["balance"])
        self.scaler.load_state_dict(training["scaler"])
        self.probed = training["probed"]
        self.line = training["line"]
        for name in self.COUNTERS:
            setattr(self, name, training[name])

    def _check(self, training: Mapping[str, Any]) -> None:
        """Raise `ValueError` for counters that are not of the kinds that this state has."""
        for name in self.COUNTERS:
            value, kind = training[name], type(getattr(self, name))
            fits = type(value) is kind or (kind is float and type(value) is int)
            if not fits or (type(value) is int and not 0 <= value < 2**80):
                raise ValueError(f"training.{name} is {repr(value)[:60]}; allowed: {kind.__name__}, 0 or more")
        if not all(type(loss) is float for loss in training["recent_losses"]):
            raise ValueError("training.recent_losses holds something else; allowed: numbers")
        for name in ("optimizer", "balance", "scaler", "probed"):
            if not isinstance(training[name], dict):
                raise ValueError(f"training.{name} is a {type(training[name]).__name__}; allowed: a mapping")

    @property
    def position(self) -> int:
        """Steps' worth of data that were read or left out so far."""
        return self.step + self.left_out_data

    def remember(self, loss: float) -> None:
        """Keep the loss of one more step, if it is a number."""
        if math.isfinite(loss):
            self.recent_losses = [*self.recent_losses, loss][-self.HISTORY :]

    @property
    def units_per_second(self) -> float:
        """Of training, over all processes; evaluation and start-up aside."""
        return self.train_units / self.train_seconds if self.train_seconds else 0.0

    @property
    def flops_per_second(self) -> float:
        """Model FLOPs of training, as `units_per_second`."""
        return self.train_flops / self.train_seconds if self.train_seconds else 0.0


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    cost: of the task's sample; train_costs: of a sample of each shape, that one and those trained on.
    identity: the entries of a checkpoint that say what the model is: model, data, config, evaluate.
    interrupts: signals that stop the run between steps; they are so while it is entered.
    """

    config: RunConfig
    processes: Processes
    layout: Layout
    task: Task
    train_loader: Loader
    val_loader: Loader
    schedule: Scheduler
    cost: Cost
    train_costs: Mapping[torch.Size, Cost]
    folder: RunFolder
    identity: dict[str, Any]
    interrupts: Interrupts = field(default_factory=Interrupts)

    @cached_property
    def precision(self) -> torch.dtype:
        """Of the forward, on this run's device."""
        return choose_precision(self.config.train.precision, self.processes.device)

    @cached_property
    def probe(self) -> Probe | None:
        """The sample whose routing is looked at, read when it is first asked for, if the model routes and the config
        asks for one; on the first process, or on all where they run forwards together.
        """
        count, here = self.config.train.probe_samples, self.processes.first or self.layout.forwards_together
        if not count or not here or not self.cost.layers:
            return None
        return Probe.read(self.val_loader, count, self.config.data.eval_batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_loader) // self.config.train.accumulate

    @property
    def last_step(self) -> int:
        """The step at which training ends."""
        return self.config.schedule.last_step(self.steps_per_epoch)

    @property
    def eval_interval(self) -> int:
        """Optimizer steps from one evaluation to the next."""
        train = self.config.train
        return train.eval_every_steps or train.eval_every * self.steps_per_epoch

    def next_stop(self, step: int, position: int | None = None) -> int:
        """Where training next pauses after a step, to evaluate or save: an epoch's end, an evaluation, a checkpoint
        that the config asks for, or the end.

        position: where its data are, if not at the step.
        """
        keep = self.config.checkpoint
        ends = (self.steps_per_epoch, self.eval_interval, keep.every_steps, keep.keep_every)
        stops = [(step // interval + 1) * interval for interval in ends if interval]
        end_of_data = step + self.steps_per_epoch - (step if position is None else position) % self.steps_per_epoch
        return min(self.last_step, end_of_data, *stops)

    def evaluates_at(self, step: int) -> bool:
        return step == self.last_step or step % self.eval_interval == 0
