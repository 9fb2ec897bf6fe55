"""The good files that hostile ones are made of: image folders, .beton and token files, configs, trained runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from text_world import make_text_world
from world import make_world, vmoe

from vmoe.data import ArraySource, write_beton


def make_good_world(folder: Path) -> None:
    """Everything, in a folder that is the working directory; a second or two for the runs."""
    (folder / "good").symlink_to(".")  # the configs and checkpoints name their data by the same paths as hostile ones
    make_world(folder)
    make_text_world(folder)
    for name, data in {
        "tiny.yaml": ("images/train", "images/val"),
        "text.yaml": ("train.tokens", "val.tokens"),
    }.items():
        text = (folder / name).read_text()
        for path in data:
            text = text.replace(f" {path}", f" good/{path}")
        (folder / name).write_text(text)
    images, labels = np.arange(24 * 192, dtype=np.uint8).reshape(24, 8, 8, 3), np.arange(24) % 2
    source = ArraySource("toy", images, labels, ("dark", "light"))
    write_beton(source, "good.beton", mode="raw", progress=False)
    write_beton(source, "jpg.beton", mode="jpg", progress=False)
    runs = {
        "tiny": ("tiny.yaml", "output=runs/tiny"),
        "dense": ("tiny.yaml", "moe.gate=dense", "output=runs/dense"),
        "text": ("text.yaml", "output=runs/text"),
    }
    for arguments in runs.values():
        trained = vmoe("train", *arguments, "schedule.max_steps=1")
        assert trained.status == 0, trained
