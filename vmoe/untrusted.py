"""What somebody else made: files opened without waiting and read up to a limit, and their words without harm.

Opening a pipe waits until somebody writes into it, and reading a device may never end. A terminal obeys control
characters, and shows text behind some others in another order.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from io import BufferedReader
from pathlib import Path

JOINERS = "\u200c\u200d"  # they shape letters and emoji, and reorder nothing
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats such as bidi marks, lone surrogates, separators
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class NotAFileError(OSError):
    """What cannot be read as a file; the message names it."""


def open_file(path: str | Path) -> BufferedReader:
    """Open a regular file for reading. Raises `OSError` for one that is not there or may not be read, and for anything
    else: pipes, devices, folders."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            raise NotAFileError(f"'{path}' is {_KINDS.get(kind, 'no file')}; allowed: a file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: str | Path, most: int) -> bytes:
    """The content of a regular file. Raises `OSError`, as `open_file` and for one of more than so many bytes."""
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise NotAFileError(f"'{path}' has more than {most:,} bytes; allowed: at most so many")
    return content


def printable(text: str) -> str:
    """Text as people can see it: characters that are invisible, or do something to others, are spelled out.

    Newlines and tabs stay what they are.
    """
    return "".join(character if character in "\n\t" else spelled_out(character) for character in text)


def spelled_out(character: str) -> str:
    hidden = unicodedata.category(character) in HIDDEN and character not in JOINERS
    return f"⟨U+{ord(character):04X}⟩" if hidden else character
