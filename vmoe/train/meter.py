"""What training steps add up to, and the lines that tell of it."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from vmoe.moe import Record

from .distributed import sum_over_processes
from .progress import Progress
from .state import Parts, TrainState


class Meter:
    """What an epoch's steps add up to. Counts stay on the device until they are asked for."""

    def __init__(self, parts: Parts):
        self.parts = parts
        device = parts.processes.device
        self.pairs = {name: torch.zeros((), dtype=torch.int64, device=device) for name in parts.cost.layers}
        self.images = 0
        self.start = time.perf_counter()
        self.loss_since_log = torch.zeros((), device=device)
        self.batches_since_log = 0
        self.images_at_log, self.time_at_log = 0, self.start

    def add(self, loss: Tensor, images: int) -> None:
        self.loss_since_log += loss
        self.batches_since_log += 1
        self.images += images * self.parts.processes.world

    def count_pairs(self, routings: Record) -> None:
        for name, routing in routings.items():
            self.pairs[name] += routing.count_pairs()

    def since_log(self) -> tuple[float, float]:
        """(mean loss on this process, images a second over all processes) since this was last asked."""
        loss = self.loss_since_log.item() / max(self.batches_since_log, 1)
        now = time.perf_counter()
        rate = (self.images - self.images_at_log) / (now - self.time_at_log)
        self.loss_since_log.zero_()
        self.batches_since_log = 0
        self.images_at_log, self.time_at_log = self.images, now
        return loss, rate

    def close(self, state: TrainState) -> None:
        """Add the epoch's images, seconds and FLOPs, over all processes, to the state."""
        pairs = {name: int(sum_over_processes(count)) for name, count in self.pairs.items()}
        state.train_seconds += time.perf_counter() - self.start
        state.train_images += self.images
        state.train_flops += self.parts.cost.train_flops(self.images, pairs)


def log_training(state: TrainState, parts: Parts, meter: Meter, progress: Progress) -> None:
    """A line for people and one for metrics.jsonl."""
    loss, rate = meter.since_log()
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {state.step}; the last checkpoint is {parts.folder.last}. Try a smaller"
            " optimizer.lr, optimizer.clip_grad, or train.precision=float32"
        )
    rate_of_learning = max(group["lr"] for group in state.optimizer.param_groups)
    balance = {name: float(value) for name, value in state.balance.figures().items()}
    parts.folder.log(
        {
            "kind": "train",
            "step": state.step,
            "epoch": state.epoch,
            "loss": loss,
            "lr": rate_of_learning,
            "images_per_second": rate,
            **balance,
        }
    )
    figures = [f"step {state.step}", f"loss {loss:.4f}", f"lr {rate_of_learning:.2e}", f"{rate:,.0f} img/s"]
    progress.figures(", ".join([*figures, *(f"{name} {value:.3g}" for name, value in balance.items())]))
