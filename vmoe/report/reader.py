"""Typed values out of JSON that has been read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


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
        return value if isinstance(value, str) else self._refuse(key, "a string")

    def number(self, key: str) -> float:
        value = self.value(key)
        return float(value) if _is_number(value) else self._refuse(key, "a number")

    def integer(self, key: str) -> int:
        value = self.value(key)
        return value if _is_number(value) and isinstance(value, int) else self._refuse(key, "a whole number")

    def optional_number(self, key: str) -> float | None:
        return None if self.value(key) is None else self.number(key)

    def optional_integer(self, key: str) -> int | None:
        return None if self.value(key) is None else self.integer(key)

    def numbers(self, key: str) -> list[float]:
        value = self.value(key)
        valid = isinstance(value, list | tuple) and all(_is_number(item) and math.isfinite(item) for item in value)
        return list(value) if valid else self._refuse(key, "a list of finite numbers")

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


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
