"""What a checkpoint holds: one dictionary of plain values and tensors, from which the model can be built again."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

FORMAT = 2
KEYS = frozenset({"format", "vmoe", "model", "data", "config", "weights", "ema", "evaluate", "training"})
"""What a run gives: `format`, `vmoe` (version), `model` (name, arguments and `MoESpec`), `data` (what turns a picture
into the model's input, and the class names), `config` (of the run, resolved), `weights`, `ema` (or None), `evaluate`
(``raw`` or ``ema``, which of the two counts), `training` (what a resumed run needs).
"""
ADDED = frozenset({"rank", "digest"})
"""What a file has besides: `rank` (`Scores.rank` of the evaluation of this state, or None without one), `digest`."""


def counting_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that evaluation uses: the moving average where the run says so, else the raw ones."""
    weights: dict[str, Tensor] = checkpoint["ema"] if checkpoint["evaluate"] == "ema" else checkpoint["weights"]
    return weights


def plain(value: Any, where: str = "checkpoint") -> Any:
    """The same in dict, list, tuple, str, int, float, bool, None and tensors alone, which share their memory with those
    given. It is all that a reader without code accepts.

    Raises `TypeError` for anything else. where: what `value` is called in errors.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Tensor):
        return value.detach()
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {plain(key, f"a key of {where}"): plain(inner, f"{where}[{key!r}]") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        items = [plain(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise TypeError(f"{where} is {value!r}; allowed in a checkpoint: tensors and plain values")


def digest_of(contents: Mapping[str, Any], *, sharing: bool = True) -> str:
    """SHA-256 over everything but `digest` itself: types, keys, values, and of tensors dtype, shape and bytes.

    sharing: and which tensors are one in memory. It does not depend on the order of keys nor on how a file stores them.
    Raises `TypeError` for what `plain` never gives. It runs at 0.4 to 1 GB/s of a core; other threads run meanwhile.
    """
    digest = hashlib.sha256()
    storages: dict[int, int] | None = {} if sharing else None
    for part in _parts({key: value for key, value in contents.items() if key != "digest"}, storages):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any, storages: dict[int, int] | None) -> Iterator[bytes | memoryview]:
    """Bytes that differ wherever the values do: each begins with its kind and its length.

    storages: numbers of the storages so far, in the order in which they were met; None: they do not matter.
    """
    kind = type(value)
    if value is None or kind in (bool, int):
        yield _text(f"{kind.__name__} {value}")
    elif kind is float:
        yield _text(f"float {struct.pack('<d', value).hex()}")
    elif kind is str:
        yield _text("str " + value)
    elif kind in (list, tuple):
        yield _text(f"{kind.__name__} of {len(value)}")
        for inner in value:
            yield from _parts(inner, storages)
    elif kind is dict:
        yield _text(f"dict of {len(value)}")
        for key in sorted(value, key=lambda key: (type(key).__name__, key)):
            yield from _parts(key, storages)
            yield from _parts(value[key], storages)
    elif kind is Tensor and value.layout is torch.strided and not value.is_quantized:
        number = storages.setdefault(value.untyped_storage()._cdata, len(storages)) if storages is not None else "any"
        yield _text(f"tensor {value.dtype} {tuple(value.shape)} {value.requires_grad} {number}")
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        yield memoryview(flat.numpy())
    else:
        raise TypeError(f"{kind.__name__}: no plain value")


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded
