"""What training steps add up to, and the lines that tell of it."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import torch
from torch import Tensor

from vmoe.moe import Record
from vmoe.moe.collective import sum_over_processes

from .progress import Progress
from .state import Parts, TrainState


class SinceLog(NamedTuple):
    """Mean losses on this process, and units a second over all processes, since the last line."""

    loss: float
    balance_loss: float
    units_per_second: float


class Meter:
    """What the steps up to the next stop add up to. Counts stay on the device until they are asked for."""

    def __init__(self, parts: Parts):
        self.parts = parts
        device = parts.processes.device
        self.rows = {name: torch.zeros((), dtype=torch.int64, device=device) for name in parts.cost.layers}
        self.units = 0
        self.start = time.perf_counter()
        self.losses = torch.zeros(2, device=device)  # task and balance, since the last line
        self.batches_since_log = 0
        self.units_at_log, self.time_at_log = 0, self.start

    def add(self, task_loss: Tensor, balance_loss: Tensor | float, routings: Record, samples: int) -> None:
        """Count one micro-batch of this process."""
        self.losses[0] += task_loss.detach()
        self.losses[1] += balance_loss.detach() if isinstance(balance_loss, Tensor) else balance_loss
        self.batches_since_log += 1
        self.units += samples * self.parts.task.units_per_sample * self.parts.processes.world
        for name, routing in routings.items():
            self.rows[name] += routing.count_rows()

    def since_log(self, step: int) -> SinceLog:
        """What happened since this was last asked. Raises `FloatingPointError` if a loss was not finite."""
        task, balance = (self.losses / max(self.batches_since_log, 1)).tolist()
        if not math.isfinite(task + balance):
            raise FloatingPointError(
                f"by step {step} the loss is {task}, with a balance loss of {balance}; the last checkpoint is"
                f" {self.parts.folder.last}. Try a smaller optimizer.lr, an optimizer.clip_grad, or"
                " train.precision=float32"
            )
        now = time.perf_counter()
        rate = (self.units - self.units_at_log) / (now - self.time_at_log)
        self.losses.zero_()
        self.batches_since_log = 0
        self.units_at_log, self.time_at_log = self.units, now
        return SinceLog(task, balance, rate)

    def close(self, state: TrainState) -> None:
        """Add what was done, over all processes, to the state: units, seconds and FLOPs.

        Raises `FloatingPointError` if a loss since the last line was not finite.
        """
        self.since_log(state.step)
        rows = {name: int(sum_over_processes(count)) for name, count in self.rows.items()}
        state.train_seconds += time.perf_counter() - self.start
        state.train_units += self.units
        state.train_flops += self.parts.cost.train_flops(self.units, rows)


def log_training(state: TrainState, parts: Parts, meter: Meter, progress: Progress) -> None:
    """A line for people and one for metrics.jsonl."""
    since = meter.since_log(state.step)
    rate_of_learning = max(group["lr"] for group in state.optimizer.param_groups)
    balance = {name: float(value) for name, value in state.balance.figures().items()}
    parts.folder.log(
        {
            "kind": "train",
            "step": state.step,
            "epoch": state.step / parts.steps_per_epoch,
            "loss": since.loss,
            "balance_loss": since.balance_loss,
            "lr": rate_of_learning,
            f"{parts.task.UNIT}s_per_second": since.units_per_second,
            **balance,
        }
    )
    figures = [
        f"step {state.step}",
        f"loss {since.loss:.4f}",
        f"lr {rate_of_learning:.2e}",
        f"{since.units_per_second:,.0f} {parts.task.SHORT}/s",
    ]
    progress.figures(", ".join([*figures, *(f"{name} {value:.3g}" for name, value in balance.items())]))
