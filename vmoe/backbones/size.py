"""How large a model may become, found out before it takes any memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

MOST_TENSORS = 5_000  # of a model; GPT-2 XL has 580
LARGEST_NUMBER = 2**24  # among the arguments of a model
FROM_ELSEWHERE = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "pretrained")


class TooLargeError(BaseException):
    """A model that became larger than it may be; no `Exception`, which those who build models catch."""


def check_arguments(kwargs: dict[str, Any], where: str) -> None:
    """Raise `ValueError` for arguments of a model that would read other files, and for numbers that no model has, with
    which some loop or list would not end. where: what kwargs are called in errors.
    """
    for name, value in kwargs.items():
        if name in FROM_ELSEWHERE:
            raise ValueError(
                f"{where} holds {name}, which may read other files; allowed: weights by model.weights, model.pretrained"
            )
        for number in _numbers(value):
            if not abs(number) <= LARGEST_NUMBER:
                raise ValueError(f"{where}.{name} holds {_brief(number)}; allowed: numbers up to {LARGEST_NUMBER:,}")


def _numbers(value: Any, level: int = 0) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple | dict) and level < 9:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner, level + 1)


def _brief(number: float) -> str:
    return f"{number:,}" if abs(number) < 1e30 else "a number of more than 30 digits"


def check_size(build: Callable[[], nn.Module], most: int, refuse: Callable[[], Exception]) -> None:
    """Build a model without memory, on torch's meta device, and raise `refuse()` where it has more than so many
    parameters and buffered numbers, or more than `MOST_TENSORS` of them. Errors of other kinds are passed over: the
    real building meets them too. Random numbers go on as if nothing had been built.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _counted(most):
            build()
    except TooLargeError:
        raise refuse() from None
    except Exception:
        return


def memory() -> int:
    """Bytes that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextmanager
def _counted(most: int) -> Iterator[None]:
    """Within, raise `TooLargeError` as soon as modules have more than that."""
    numbers = tensors = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal numbers, tensors
        if tensor is not None:
            numbers, tensors = numbers + tensor.numel(), tensors + 1
        if numbers > most or tensors > MOST_TENSORS:
            raise TooLargeError

    handles = (
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
