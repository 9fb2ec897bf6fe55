"""How the classes of data to evaluate stand to those of the model: from names of folders to the model's labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, listing

Match = Literal["same", "some", "subset", "index"]
"""``same``: the data have the model's classes, in its order. ``some``: some of them, by name, in any order.
``subset``: as some, and the model chooses among these alone. ``index``: folders are called by the numbers of the
model's classes, all of them.
"""


def match_classes(names: Sequence[str], key: str, model: Sequence[str], match: Match) -> NDArray[np.int64]:
    """(classes of the data,): the model's label of each class of the data.

    names: of the data's classes. key: what the data are called in errors. Raises `DataError` where the names do not
    stand to the model's as `match` says.
    """
    if match == "same":
        check_same(names, key, model, "the model", _hint(names, model))
        return np.arange(len(model), dtype=np.int64)
    if match == "index":
        return _by_number(names, key, len(model))
    labels = {name: label for label, name in enumerate(model)}
    if unknown := sorted(set(names) - set(labels)):
        raise DataError(
            f"{key} has {len(unknown)} of {len(names)} classes that the model lacks: {listing(unknown)}; allowed for"
            f" classes to be matched as {match!r}: names of the model's classes"
        )
    return np.array([labels[name] for name in names], dtype=np.int64)


def check_same(names: Sequence[str], key: str, expected: Sequence[str], other: str, hint: str = "") -> None:
    """Raise `DataError` unless both have the same classes in the same order. other: what has the expected ones."""
    if tuple(names) == tuple(expected):
        return
    extra, lacking = sorted(set(names) - set(expected)), sorted(set(expected) - set(names))
    differences = [f"{other} lacks {listing(extra)}"] if extra else []
    differences += [f"{key} lacks {listing(lacking)}"] if lacking else []
    raise DataError(
        f"{key} has {len(names)} classes and {other} {len(expected)}, and they must be the same:"
        f" {'; '.join(differences) or 'their order differs'}{hint}"
    )


def _by_number(names: Sequence[str], key: str, classes: int) -> NDArray[np.int64]:
    """Labels of names that are numbers. Sorted as text, ``10`` comes before ``2``."""
    allowed = f"allowed for classes to be matched as 'index': 0 to {classes - 1}, the numbers of the model's classes"
    if strange := [name for name in names if not (name.isascii() and name.isdigit())]:
        raise DataError(f"{key} has classes whose names are no numbers: {listing(strange)}; {allowed}")
    labels = [int(name) for name in names]
    if beyond := [name for name, label in zip(names, labels, strict=True) if label >= classes]:
        raise DataError(f"{key} has classes that the model lacks: {listing(beyond)}; {allowed}")
    if len(set(labels)) < len(labels):
        raise DataError(f"{key} has two classes of one number; {allowed}, each once")
    if lacking := sorted(set(range(classes)) - set(labels)):
        raise DataError(f"{key} lacks classes: {listing([str(label) for label in lacking])}; {allowed}, all of them")
    return np.array(labels, dtype=np.int64)


def _hint(names: Sequence[str], model: Sequence[str]) -> str:
    """What else may be meant."""
    if set(names) <= set(model):
        return "; allowed too: --classes some, which finds labels by name, or subset, which restricts the model to them"
    if all(name.isascii() and name.isdigit() for name in names):
        return "; allowed too: --classes index, where names are numbers of the model's classes, as in ImageNet-V2"
    return ""
