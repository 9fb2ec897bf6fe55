"""Lines for people: warnings that nobody overlooks, and what an error comes to."""

from __future__ import annotations

import sys


def first_line(error: Exception) -> str:
    """Of a message, or the error's name where it has none: what libraries tell in many lines."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def tell(line: str) -> None:
    """Write a warning to standard error, at once."""
    print(f"vmoe: WARNING: {line}", file=sys.stderr, flush=True)
