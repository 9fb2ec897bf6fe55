"""Named tensors in a safetensors file: no code in it, and those that are one in memory are stored once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors; of those that are one in memory, such as tied embeddings, one, which the others are said to be."""
    first: dict[tuple[Any, ...], str] = {}
    others = {}
    for name, tensor in weights.items():
        view = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and first.setdefault(view, name) != name:
            others[name] = first[view]
    kept = {name: tensor.contiguous() for name, tensor in weights.items() if name not in others}
    save_file(kept, path, metadata={"format": "pt", **others})


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, with those that `write_weights` left out. Raises `OSError`, or `ValueError`: damaged."""
    path.stat()
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
            said: dict[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return weights | {name: weights[first] for name, first in said.items() if first in weights and name not in weights}
