"""Folders of `vmoe export`: weights as safetensors, and a config.json whose entry `vmoe` says what they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vmoe.tensors import read_weights

from .contents import KEYS, digest_of
from .file import checked

WEIGHTS, CONFIG = "model.safetensors", "config.json"
ENTRY = "vmoe"  # of config.json
Entry = dict[str, Any]


def describe_export(checkpoint: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Entry:
    """The entry of config.json: what the checkpoint says of its model, with a digest of that and the weights.

    checkpoint: of the keys `KEYS`, whose own weights and state of the optimizer do not count.
    """
    training = {key: checkpoint["training"][key] for key in ("step", "train_flops")}
    entry = {key: checkpoint[key] for key in KEYS - {"weights", "ema", "evaluate", "training"}} | {"training": training}
    entry = json.loads(json.dumps(entry))  # as it will be read
    return {**entry, "digest": digest_of(_contents(entry, weights), sharing=False)}


def _contents(entry: Entry, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """A checkpoint that has these weights alone."""
    return {**entry, "weights": dict(weights), "ema": None, "evaluate": "raw", "rank": None}


def read_export(folder: Path, name: str) -> dict[str, Any]:
    """The checkpoint that a folder holds. name: what the folder is called in errors.

    Raises `ValueError`: no such folder, or a damaged one.
    """
    try:
        described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(described, dict) or not isinstance(described.get(ENTRY), dict):
            raise ValueError(f"{CONFIG} has no entry {ENTRY!r}")
        weights = read_weights(folder / WEIGHTS)
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise ValueError(f"{name}: no folder that vmoe export wrote, since it holds no {missing}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: damaged, or no folder that vmoe export wrote: {error}") from None
    contents = _contents(described[ENTRY], weights)
    if "format" not in contents:
        raise ValueError(f"{name}: damaged: its {CONFIG} does not say of which format it is")
    return checked(name, contents, sharing=False)
