"""What a run is made of: the state that training changes, and the parts that it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from vmoe.config import RunConfig
from vmoe.moe import Balance

from .augment import Augment
from .cost import Cost
from .distributed import Processes
from .loaders import ImageLoader
from .precision import choose_precision
from .runfolder import RunFolder


@dataclass
class TrainState:
    """Everything that training changes. step, epoch: done so far. best_top1: of the evaluations so far."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    balance: Balance
    ema: ModelEmaV3 | None
    step: int = 0
    epoch: int = 0
    best_top1: float = -1.0
    train_flops: int = 0
    train_seconds: float = 0.0
    train_images: int = 0

    COUNTERS = ("step", "epoch", "best_top1", "train_flops", "train_seconds", "train_images")

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs besides the weights."""
        counters = {name: getattr(self, name) for name in self.COUNTERS}
        return {"optimizer": self.optimizer.state_dict(), "balance": self.balance.state_dict(), **counters}

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same config."""
        self.model.load_state_dict(checkpoint["weights"])
        if self.ema is not None:
            self.ema.module.load_state_dict(checkpoint["ema"])
        training = checkpoint["training"]
        self.optimizer.load_state_dict(training["optimizer"])
        self.balance.load_state_dict(training["balance"])
        for name in self.COUNTERS:
            setattr(self, name, training[name])

    @property
    def images_per_second(self) -> float:
        """Of training, over all processes; evaluation and start-up aside."""
        return self.train_images / self.train_seconds if self.train_seconds else 0.0


@dataclass(frozen=True)
class Parts:
    """What a run is made of. prepare: from uint8 images to the model's input, on the device.

    identity: the entries of a checkpoint that say what the model is: model, data, config, evaluate.
    """

    config: RunConfig
    processes: Processes
    train_loader: ImageLoader
    val_loader: ImageLoader
    prepare: nn.Module
    augment: Augment
    schedule: Scheduler
    cost: Cost
    folder: RunFolder
    identity: dict[str, Any]

    @property
    def precision(self) -> torch.dtype:
        """Of the forward, on this run's device."""
        return choose_precision(self.config.train.precision, self.processes.device)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_loader) // self.config.train.accumulate
