"""What every spec shares: strictness, one wording of errors, and choice by `kind`."""

from __future__ import annotations

from math import inf
from typing import Any, get_args

# How pydantic reads these classes in `vmoe.config`; a plain value, so that the core needs torch alone.
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise `ValueError` naming the key, its value and what is allowed, unless the condition holds."""
    if not condition:
        raise ValueError(f"{key} is {value!r}; allowed: {allowed}")


def require_coefficient(key: str, value: float) -> None:
    require(0 <= value < inf, key, value, "0 or more, finite")


def require_positive(key: str, value: float) -> None:
    require(0 < value < inf, key, value, "more than 0, finite")


class ByKind:
    """Tells pydantic to choose among dataclasses by their `kind`, in the plain dictionaries its schemas are."""

    def __get_pydantic_core_schema__(self, union: Any, handler: Any) -> dict[str, Any]:
        choices = {choice.kind: handler.generate_schema(choice) for choice in get_args(union)}
        return {"type": "tagged-union", "discriminator": "kind", "choices": choices}
