"""Lines of JSON in a file that grows during a run: whole lines only, and none is lost while the disk is full."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vmoe.files import replace_file

from .warn import tell


class Lines:
    """A file of JSON mappings with `kind` and `step`, a line each. waiting: lines that could not be written yet."""

    def __init__(self, path: Path):
        self.path = path
        self.waiting: list[str] = []

    def append(self, line: str) -> None:
        """Add a line, after those that wait. What cannot be written now waits for the next one."""
        self.waiting.append(line)
        self.write()

    def write(self) -> None:
        """Write what waits. That it cannot be done, and that it can again, is told once."""
        if not self.waiting:
            return
        try:
            append_whole(self.path, "".join(f"{line}\n" for line in self.waiting).encode())
        except OSError as error:
            if len(self.waiting) == 1:
                tell(f"{self.path} could not be written: {error}; its lines are kept until it can be")
            return
        if len(self.waiting) > 1:
            tell(f"{self.path} is written again, with the {len(self.waiting) - 1} lines that had to wait")
        self.waiting.clear()

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the entries that are not wanted, and what is no entry, such as a line cut short; the latter is told."""
        self.waiting = [line for line in self.waiting if wanted(json.loads(line))]
        if not self.path.exists():
            return
        kept, unreadable = [], 0
        for line in self.path.read_bytes().splitlines():
            try:
                if wanted(json.loads(line)):
                    kept.append(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                unreadable += 1
        if unreadable:
            tell(f"{self.path}: left out what is no whole line, {unreadable} altogether")
        replace_file(self.path, b"".join(line + b"\n" for line in kept))


def append_whole(path: Path, content: bytes) -> None:
    """Add content to a file, all of it or nothing, on a line of its own. Raises `OSError`."""
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        content = b"\n" + content if size and _last_byte(path) != b"\n" else content
        try:
            while content:
                content = content[write_some(file, content) :]
        except OSError:
            with suppress(OSError):  # else the torn line ends before the next one, and readers leave it out
                file.truncate(size)
            raise


def write_some(file: io.FileIO, content: bytes) -> int:
    """Write as much as fits; how many bytes that were."""
    return file.write(content)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1)
