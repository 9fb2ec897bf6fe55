"""What a checkpoint's dictionary holds, looked at before anything is made of it: types, and how much there is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOST_VALUES = 1_000_000  # of model, data and config together: lists may hold each other many times over
MOST_CHARACTERS = 100_000_000  # of their texts: one may be there many times over
MOST_TIMES = 8  # that the tensors are as large, each by itself, as what is stored of them; tied weights are stored once
MOST_LEVELS = 50
LONGEST_TEXT = 10_000  # characters

SECTIONS: dict[str, type] = {
    "vmoe": str,
    "model": dict,
    "data": dict,
    "config": dict,
    "weights": dict,
    "training": dict,
}
MODEL: dict[str, type] = {"name": str, "kwargs": dict, "moe": dict}
NAMES: dict[type, str] = {dict: "a mapping of texts", str: "a text"}


def check_contents(checkpoint: dict[str, Any], path: object) -> None:
    """Raise `ValueError` unless every section is what its readers take it for. path: what the file is called."""
    for key, kind in SECTIONS.items():
        _require(checkpoint[key], kind, f"{path}: {key}")
    if (rank := checkpoint.get("rank")) is not None and type(rank) not in (int, float):
        raise ValueError(f"{path}: rank is {_brief(rank)}; allowed: a number, or none")
    _plain([checkpoint[key] for key in ("vmoe", "model", "data", "config")], f"{path}: vmoe, model, data or config")
    tensors = _plain(checkpoint["training"], f"{path}: training", tensors=True)
    for tensor in tensors:
        _check_tensor(tensor, f"{path}: training: a tensor")
    for key, kind in MODEL.items():
        if key not in checkpoint["model"]:
            raise ValueError(f"{path}: damaged, model lacks {key}")
        _require(checkpoint["model"][key], kind, f"{path}: model.{key}")
    if checkpoint["evaluate"] not in ("raw", "ema"):
        raise ValueError(f"{path}: evaluate is {_brief(checkpoint['evaluate'])}; allowed: raw, ema")
    tensors += _checked_tensors(checkpoint["weights"], f"{path}: weights")
    if checkpoint["ema"] is not None:
        _require(checkpoint["ema"], dict, f"{path}: ema")
        tensors += _checked_tensors(checkpoint["ema"], f"{path}: ema")
    elif checkpoint["evaluate"] == "ema":
        raise ValueError(f"{path}: evaluate is 'ema', and there is no moving average in it; allowed: raw")
    _check_sharing(tensors, path)
    for key in ("step", "train_flops"):
        if key not in checkpoint["training"]:
            raise ValueError(f"{path}: damaged, training lacks {key}")
        value = checkpoint["training"][key]
        if type(value) is not int or not 0 <= value < 2**80:
            raise ValueError(f"{path}: training.{key} is {_brief(value)}; allowed: a whole number, 0 or more")


def _require(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, dict) and not all(isinstance(key, str) for key in value)):
        raise ValueError(f"{where} is {_brief(value)}; allowed: {NAMES[kind]}")


def _checked_tensors(weights: dict[str, Any], where: str) -> list[Tensor]:
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{where}: {_brief(name)} is a {type(tensor).__name__}; allowed: a tensor")
        _check_tensor(tensor, f"{where}: {_brief(name)}")
    return [*weights.values()]


def _check_tensor(tensor: Tensor, where: str) -> None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise ValueError(f"{where} is {tensor.layout} on {tensor.device}; allowed: plain numbers, one by one")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{where} has {tensor.numel():,} numbers, and fewer are in the file; allowed: all")


def _check_sharing(tensors: list[Tensor], path: object) -> None:
    """Raise `ValueError` where the same few numbers are in many tensors, which would take for ever to look at."""
    stored = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > MOST_TIMES * sum(stored.values()):
        raise ValueError(f"{path}: refused, since the same numbers are in it many times: {size:,} bytes of tensors")


def _plain(content: Any, where: str, *, tensors: bool = False) -> list[Tensor]:
    """The tensors in it. Raises `ValueError` for anything but texts, numbers and lists and mappings of them, and for
    too many.

    tensors: may be among them, and mappings may go by numbers.
    """
    values, level = [content], 0
    seen = characters = 0
    found: list[Tensor] = []
    keys, leaves = ((str, int), (bool, int, float, Tensor)) if tensors else ((str,), (bool, int, float))
    while values:
        inner: list[Any] = []
        for value in values:
            if isinstance(value, dict):
                if not all(isinstance(key, keys) for key in value):
                    raise ValueError(f"{where} holds a mapping whose keys are no texts: {_brief([*value])}")
                inner += [*value, *value.values()]
            elif isinstance(value, list | tuple):
                inner += value
            elif isinstance(value, str):
                if len(value) > LONGEST_TEXT:
                    raise ValueError(f"{where} holds a text of {len(value):,} characters; allowed: {LONGEST_TEXT:,}")
                characters += len(value)
            elif value is not None and not isinstance(value, leaves):
                raise ValueError(f"{where} holds a {type(value).__name__}; allowed: texts, numbers, lists, mappings")
            if seen + len(inner) > MOST_VALUES:
                raise ValueError(f"{where} holds more than {MOST_VALUES:,} values")
            if isinstance(value, Tensor):
                found.append(value)
        if characters > MOST_CHARACTERS:
            raise ValueError(f"{where} holds texts of more than {MOST_CHARACTERS:,} characters")
        seen += len(inner)
        level += 1
        if level > MOST_LEVELS:
            raise ValueError(f"{where} is more than {MOST_LEVELS} levels deep")
        values = inner
    return found


def _brief(value: Any) -> str:
    """A value in a few words; a container, which may be without end, by its kind alone."""
    if isinstance(value, dict | list | tuple | Tensor):
        return f"a {type(value).__name__} of {len(value) if not isinstance(value, Tensor) else value.numel():,}"
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**60 else "a number of many digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
