"""Snapshots: nested values as they are at one moment, for whoever writes them while training goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Key = tuple[int, torch.Size, tuple[int, ...], torch.dtype]


def snapshot(value: Any) -> Any:
    """The same mappings and sequences with a copy of each tensor in CPU memory; names of one tensor share one copy."""
    copies: dict[Key, Tensor] = {}

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            key = (value.data_ptr(), value.shape, value.stride(), value.dtype)
            if key not in copies or not value.numel():
                copies[key] = value.detach().to("cpu", copy=True)
            return copies[key]
        if isinstance(value, dict):
            return {key: copy(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(copy(inner) for inner in value)
        return value

    return copy(value)
