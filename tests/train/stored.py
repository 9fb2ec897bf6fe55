"""Small checkpoints, which hold little and are whole, and what is good in a store's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vmoe.train.checkpoint import FORMAT, KEYS, CheckpointStore, read_checkpoint


def small_checkpoint(**changes: Any) -> dict[str, Any]:
    """What a run gives, but for these changes: everything that a reader looks at, and no model that could be built."""
    model = {"name": "vit", "kwargs": {"depth": 2}, "moe": {"gate": "topk"}}
    data = {"classes": ["dark", "light"], "mean": [0.5, 0.5, 0.5]}
    parts = {"format": FORMAT, "vmoe": "0", "model": model, "data": data, "config": {"seed": 0}, "evaluate": "raw"}
    whole = {
        **parts,
        "weights": {"w": torch.zeros(1)},
        "ema": None,
        "training": {"step": 0, "train_flops": 0},
    } | changes
    assert set(whole) == KEYS
    return whole


def checkpoint_of(step: int, *, evaluated: int = 0, size: int = 100) -> dict[str, Any]:
    """A checkpoint whose weights say its step."""
    training = {"step": step, "evaluated": evaluated, "best": 0.0, "train_flops": 0}
    weights = {"w": torch.full((size,), float(step))}
    return small_checkpoint(weights=weights, training=training)


def store_in(
    folder: Path, *, writes: bool = True, keep_best: int = 1, keep_every: int | None = None
) -> CheckpointStore:
    return CheckpointStore(folder, writes=writes, keep_best=keep_best, keep_every=keep_every)


def steps_in(folder: Path) -> dict[str, int]:
    """The step of each file, by its name; every one is whole. Names that begin with a dot are nobody's."""
    read = {path.name: read_checkpoint(path) for path in sorted(folder.glob("[!.]*"))}
    for contents in read.values():
        assert contents["weights"]["w"][0] == contents["training"]["step"]
    return {name: contents["training"]["step"] for name, contents in read.items()}


def damage(path: Path) -> None:
    """Change a tensor's bytes, which torch alone would not see, in place of the file and of no other of its names."""
    content = bytearray(path.read_bytes())
    step = torch.load(path, weights_only=True)["training"]["step"]
    place = content.rindex(torch.full((100,), float(step)).numpy().tobytes())
    content[place] ^= 1
    path.unlink()
    path.write_bytes(content)
