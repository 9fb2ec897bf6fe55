"""Small runs as the command line builds them: over images in memory, and over a few lines of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vmoe.cli.tasks import Data, ImageAssembly
from vmoe.cli.train import build, build_on
from vmoe.config import RunConfig, override_config
from vmoe.train.distributed import Processes
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

TINY_TEXT = {
    "task": "text",
    "output": "unused",
    "model": {"name": "gpt2", "kwargs": {"n_layer": 2, "n_embd": 32, "n_head": 2}},
    "moe": {"gate": {"kind": "topk"}, "num_experts": 4, "layers": "last1"},
    "data": {"block_size": 16, "batch_size": 8, "eval_batch_size": 3},
    "optimizer": {"lr": 1e-2, "betas": [0.9, 0.95], "clip_grad": 1.0},
    "schedule": {"epochs": 2, "warmup_epochs": 0.5},
    "train": {"precision": "float32", "log_every": 1},
}


class MemoryLoader:
    """The loader's contract over tensors: images (N, 3, H, W) uint8 and labels (N,)."""

    def __init__(self, images, labels, batch_size, *, shuffle, classes=("dark", "bright")):
        self.images, self.labels, self.batch_size, self.shuffle = images, labels, batch_size, shuffle
        self.classes = classes
        self.units = len(labels)

    def __len__(self):
        full, rest = divmod(len(self.labels), self.batch_size)
        return full if self.shuffle else full + bool(rest)

    def sample(self, count):
        chosen = slice(0, None, -(-len(self.labels) // count))
        return MemoryLoader(self.images[chosen], self.labels[chosen], self.batch_size, shuffle=False)

    def epoch(self, number, first=0):
        order = np.arange(len(self.labels))
        if self.shuffle:
            order = np.random.default_rng(number).permutation(order)
        for batch in range(first, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self.images[chosen], self.labels[chosen]


def dark_or_bright(count: int = 48, size: int = 8):
    """Images whose brightness gives the class away, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 120, (count, 3, size, size), generator=generator)
    return (noise + 130 * labels[:, None, None, None]).to(torch.uint8), labels


def tiny_config(*overrides: str) -> RunConfig:
    return override_config(TINY, overrides, "tiny")


def tiny_run(config: RunConfig, folder: Path) -> tuple[TrainState, Parts]:
    """State and parts of a run over images in memory, as the command line builds them."""
    folder.mkdir(exist_ok=True)
    images, labels = dark_or_bright()
    train = MemoryLoader(images, labels, config.data.batch_size // config.train.accumulate, shuffle=True)
    val = MemoryLoader(images, labels, config.data.eval_batch_size, shuffle=False)
    entry = ImageAssembly(config).entry(train.classes)
    return build_on(Data(train, val, entry), config, ALONE, RunFolder(folder, writes=True, keep=config.checkpoint))


def tiny_text_config(folder: Path, *overrides: str) -> RunConfig:
    """A byte-level GPT-2 and the text it is trained on, which is written into the folder."""
    from vmoe.data.tokens import BytesTokenizer, write_tokens

    text = folder / "train.tokens"
    if not text.exists():
        write_tokens([folder_of_text(folder)], text, BytesTokenizer(), workers=1, progress=False)
    data = TINY_TEXT["data"] | {"train": str(text), "val": str(text)}
    return override_config(TINY_TEXT | {"data": data}, overrides, "tiny text")


def tiny_text_run(config: RunConfig, folder: Path) -> tuple[TrainState, Parts]:
    folder.mkdir(exist_ok=True)
    return build(config, ALONE, RunFolder(folder, writes=True, keep=config.checkpoint))


def folder_of_text(folder: Path) -> Path:
    """Two documents whose next letters are easy to tell."""
    source = folder / "text"
    source.mkdir(exist_ok=True)
    (source / "a.txt").write_text("abcd efgh " * 60)
    (source / "b.txt").write_text("the cat sat on the mat, " * 20)
    return source
