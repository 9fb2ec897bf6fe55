"""What happens to one image: the operations that it goes through, in order."""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """An operation. kind: the name of timm's function; argument: what that takes; cubic: of geometric ones alone."""

    kind: str
    argument: float = 0.0
    cubic: bool = False


Program = tuple[Step, ...]
