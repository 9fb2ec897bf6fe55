"""Checkpoints: one dictionary of plain values and tensors a file, from which the model can be built again.

Keys: `format`, `vmoe` (version), `model` (`ModelSpec` as a dictionary), `data` (what turns a picture into the model's
input, and the class names), `config` (of the run, resolved), `weights`, `ema` (or None), `evaluate` (``raw`` or
``ema``, which of the two counts), `training` (what a resumed run needs).
"""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from .archive import check_archive
from .contents import check_contents

FORMAT = 1
KEYS = frozenset({"format", "vmoe", "model", "data", "config", "weights", "ema", "evaluate", "training"})


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write under a temporary name, flush to the disk, rename: a reader sees the old file or the new one."""
    assert set(checkpoint) == KEYS, set(checkpoint) ^ KEYS
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The dictionary of a checkpoint file, on the CPU. Nothing in the file is executed (weights_only).

    Raises `FileNotFoundError`, or `ValueError`: the file is damaged, holds anything but plain values and tensors,
    is not a vmoe checkpoint, or is of a newer format.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint; a run keeps them as RUN/checkpoints/last.pt and best.pt")
    check_archive(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it would call {unsafe[1]}" if unsafe else "it holds something else"
        raise ValueError(f"{path}: refused, since a checkpoint is plain values and tensors, and {found}") from None
    except Exception as error:  # torch's reader meets arbitrary bytes and answers with whatever they lead to
        raise ValueError(f"{path}: damaged or no checkpoint: {_brief(error)}") from None
    if not isinstance(checkpoint, dict) or "format" not in checkpoint:
        raise ValueError(f"{path}: no checkpoint of vmoe (a dense timm checkpoint is loaded by timm, then upcycled)")
    if type(checkpoint["format"]) is not int or checkpoint["format"] != FORMAT:
        raise ValueError(f"{path}: checkpoint format {checkpoint['format']!r}; this version of vmoe reads {FORMAT}")
    if missing := KEYS - set(checkpoint):
        raise ValueError(f"{path}: damaged, it lacks {', '.join(sorted(missing))}")
    check_contents(checkpoint, path)
    return checkpoint


def _brief(error: Exception) -> str:
    """The first line of torch's message, or the error's name where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def counting_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights that evaluation uses: the moving average where the run says so, else the raw ones."""
    return checkpoint["ema"] if checkpoint["evaluate"] == "ema" else checkpoint["weights"]
