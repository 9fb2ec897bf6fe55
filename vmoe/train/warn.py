"""Lines that nobody overlooks."""

from __future__ import annotations

import sys


def tell(line: str) -> None:
    """Write a warning to standard error, at once."""
    print(f"vmoe: WARNING: {line}", file=sys.stderr, flush=True)
