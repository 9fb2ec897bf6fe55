"""Typed values out of JSON that has been read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmoe.untrusted import read_file

MOST = 1e30  # of any number; more than anybody counts, and plots and products of it are still numbers
MOST_NUMBERS = 20_000  # in a list: one an expert
LONGEST = 10_000  # characters


def read_json(path: Path, most: int = 2**27) -> Any:
    """The content of a JSON file of so many bytes at most. Raises `OSError`, or `ValueError` where it is none."""
    try:
        return json.loads(read_file(path, most))
    except RecursionError:
        raise ValueError("its lists and mappings are too deep in each other") from None


class Reader:
    """Takes typed values out of a mapping; an error names the file, the key and what to do."""

    def __init__(self, mapping: object, where: str):
        if not isinstance(mapping, Mapping):
            raise ValueError(f"{where} is {_brief(mapping)}; allowed: a mapping of keys to values")
        self.mapping, self.where = mapping, where

    def has(self, key: str) -> bool:
        return key in self.mapping

    def value(self, key: str) -> Any:
        if key not in self.mapping:
            raise ValueError(f"{self.where}: key {key!r} is missing; evaluate the run again with vmoe eval")
        return self.mapping[key]

    def text(self, key: str) -> str:
        value = self.value(key)
        is_one = isinstance(value, str) and len(value) <= LONGEST
        return value if is_one else self._refuse(key, f"a string of {LONGEST:,} characters at most")

    def plain(self, key: str) -> Any:
        """Anything that can be shown in a few lines."""
        value = self.value(key)
        return value if len(_brief(value, LONGEST)) < LONGEST else self._refuse(key, "something short")

    def number(self, key: str) -> float:
        value = self.value(key)
        return (
            float(value) if _is_number(value) and not MOST <= abs(value) < math.inf else self._refuse(key, "a number")
        )

    def integer(self, key: str) -> int:
        value = self.value(key)
        is_one = _is_number(value) and isinstance(value, int) and abs(value) < MOST
        return value if is_one else self._refuse(key, "a whole number")

    def optional_number(self, key: str) -> float | None:
        return None if self.value(key) is None else self.number(key)

    def optional_integer(self, key: str) -> int | None:
        return None if self.value(key) is None else self.integer(key)

    def numbers(self, key: str) -> list[float]:
        value = self.value(key)
        is_list = isinstance(value, list | tuple) and len(value) <= MOST_NUMBERS
        valid = is_list and all(_is_number(item) and abs(item) < MOST for item in value)
        return list(value) if valid else self._refuse(key, f"a list of {MOST_NUMBERS:,} finite numbers at most")

    def inner(self, key: str) -> Reader:
        return Reader(self.value(key), f"{self.where}: {key}")

    def inner_list(self, key: str) -> list[Reader]:
        value = self.value(key)
        if not isinstance(value, list | tuple):
            self._refuse(key, "a list")
        return [Reader(item, f"{self.where}: {key}[{i}]") for i, item in enumerate(value)]

    def _refuse(self, key: str, allowed: str) -> Any:
        raise ValueError(f"{self.where}: {key} is {_brief(self.mapping[key])}; allowed: {allowed}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _brief(value: object, longest: int = 60) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # lists deep in each other, an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
