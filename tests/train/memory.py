"""A loader over images in memory, and a run built on it: training without files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from vmoe.cli.assemble import build_model, describe_model
from vmoe.cli.train import build_ema
from vmoe.config import RunConfig, override_config
from vmoe.moe import balance_for
from vmoe.train.augment import Augment
from vmoe.train.cost import measure_cost
from vmoe.train.distributed import Processes
from vmoe.train.optim import build_optimizer, build_schedule
from vmoe.train.runfolder import RunFolder
from vmoe.train.state import Parts, TrainState

ALONE = Processes(rank=0, world=1, local_rank=0, local_world=1, device=torch.device("cpu"))
TINY = {
    "output": "unused",
    "model": {
        "name": "vit_tiny_patch16_224",
        "kwargs": {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2},
    },
    "moe": {"gate": {"kind": "topk"}, "num_experts": 4, "layers": "last1"},
    "data": {"train": "memory", "val": "memory", "image_size": 8, "batch_size": 8, "eval_batch_size": 7},
    "optimizer": {"lr": 3e-3},
    "schedule": {"epochs": 2, "warmup_epochs": 0.5},
    "train": {"precision": "float32", "log_every": 1},
}


class MemoryLoader:
    """The loader's contract over tensors: images (N, 3, H, W) uint8 and labels (N,)."""

    def __init__(self, images, labels, batch_size, *, shuffle, classes=("dark", "bright")):
        self.images, self.labels, self.batch_size, self.shuffle = images, labels, batch_size, shuffle
        self.classes = classes
        self.samples = len(labels)

    def __len__(self):
        full, rest = divmod(len(self.labels), self.batch_size)
        return full if self.shuffle else full + bool(rest)

    def epoch(self, number):
        order = np.arange(len(self.labels))
        if self.shuffle:
            order = np.random.default_rng(number).permutation(order)
        for batch in range(len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self.images[chosen], self.labels[chosen]


class ToFloat(nn.Module):
    def forward(self, images):
        return images.float() / 255 - 0.5


def dark_or_bright(count: int = 48, size: int = 8):
    """Images whose brightness gives the class away, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 120, (count, 3, size, size), generator=generator)
    return (noise + 130 * labels[:, None, None, None]).to(torch.uint8), labels


def tiny_config(*overrides: str) -> RunConfig:
    return override_config(TINY, overrides, "tiny")


def tiny_run(config: RunConfig, folder: Path) -> tuple[TrainState, Parts]:
    """State and parts of a run over images in memory, as the command line would build them."""
    folder.mkdir(exist_ok=True)
    images, labels = dark_or_bright()
    train = MemoryLoader(images, labels, config.data.batch_size // config.train.accumulate, shuffle=True)
    val = MemoryLoader(images, labels, config.data.eval_batch_size, shuffle=False)
    torch.manual_seed(config.seed)
    model = build_model(config, num_classes=2)
    cost = measure_cost(model, config.data.image_size)
    optimizer = build_optimizer(model, config.optimizer)
    state = TrainState(model, optimizer, balance_for(model), build_ema(config, model))
    parts = Parts(
        config=config,
        processes=ALONE,
        train_loader=train,
        val_loader=val,
        prepare=ToFloat(),
        augment=Augment(config.augment, label_smoothing=0.1, num_classes=2, device=ALONE.device),
        schedule=build_schedule(optimizer, config.schedule, len(train) // config.train.accumulate),
        cost=cost,
        folder=RunFolder(folder, writes=True),
        identity=describe_model(config, train.classes),
    )
    return state, parts
