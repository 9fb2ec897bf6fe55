"""A hostile input: how it is made, the command that meets it, and what must come of that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CANARY = "code_ran"  # what a payload would make, had it been run
MIB = 2**20


class Hostile(NamedTuple):
    """One hostile input.

    what: it is. make: puts it into the working directory, which is empty but for ``good``, a world of good files.
    command: the arguments of vmoe. status: what it must give, 2 for an error, 1 for what `vmoe doctor` finds.
    says: parts of what it must print, on standard error for 2. leaves: the names that it may leave behind, as `fnmatch`
    takes them. safe: looks at what was left and raises `AssertionError` where it is not safe. alone: it is run in a
    process of its own, since it may hang or eat memory in code that no time limit within Python stops. slow: only with
    the long tests. seconds: that it may take.
    """

    what: str
    make: Callable[[], object]
    command: tuple[str, ...]
    says: tuple[str, ...] = ()
    status: int = 2
    leaves: tuple[str, ...] = ()
    safe: Callable[[], object] | None = None
    alone: bool = False
    slow: bool = False
    seconds: float = 30.0


class Payload:
    """Unpickled, it would run a command of the shell."""

    def __reduce__(self):
        return os.system, (f"touch {CANARY}",)


def sparse(path: str, size: int, start: bytes = b"") -> None:
    """A file of that size that takes no room: bytes, then zeros."""
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)


def fifo(path: str) -> None:
    """A pipe that nobody writes into: opening it waits for ever."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def link(target: str, path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).symlink_to(target)


# What names may hold. Shown raw, the first would colour the terminal and ring, the second turn the line around.
ESCAPES = "\x1b[31mred\x1b[0m\x07\x9b2J"
BIDI = "abc\u202egnp.exe\u2066"
MARKUP = "</script><img src=x onerror=alert(1)><script>alert(1)</script>\"onmouseover='alert(1)'&lt;"
