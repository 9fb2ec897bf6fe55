"""Where text comes from: files, folders of them, data sets of the `datasets` library, Python's own sources."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vmoe.config.schema import PYTHON
from vmoe.untrusted import open_file

from ..errors import DataError, missing, missing_package
from .pieces import read_pieces
from .python_sources import library, read_sources

HUB = "hf:"
_ROWS = 100  # read at a time


class Text(NamedTuple):
    """A document, or a part of one; ends: it is the document's last. digest: SHA-256 of the whole document."""

    name: str
    content: str
    ends: bool
    digest: bytes


class Part(Protocol):
    """What one process encodes at a time; size: bytes, about."""

    @property
    def size(self) -> int: ...
    def read(self) -> Text: ...


@dataclass(frozen=True)
class FilePart:
    """Bytes `start` to `stop` of a file, which is a document."""

    path: Path
    start: int
    stop: int
    ends: bool
    digest: bytes

    @property
    def size(self) -> int:
        return self.stop - self.start

    def read(self) -> Text:
        """Raises `DataError`: the file is another than when it was checked."""
        with open_file(self.path) as file:
            file.seek(self.start)
            content = file.read(self.size)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = ""
        if len(content) != self.size or not text:
            raise DataError(f"'{self.path}' changed while it was being encoded; nothing was written")
        return Text(f"'{self.path}'", text, self.ends, self.digest)


@dataclass(frozen=True)
class RowPart:
    """A row of a data set, which is a document."""

    name: str
    content: str

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self) -> Text:
        return Text(self.name, self.content, True, hashlib.sha256(self.content.encode()).digest())


def check_file(path: Path) -> list[FilePart]:
    """The parts of a text file. Raises `DataError`: unreadable, or no UTF-8, at which byte."""
    sizes: list[int] = []
    digest = hashlib.sha256()
    try:
        with open_file(path) as file:
            for piece in read_pieces(file):
                piece.decode()
                digest.update(piece)
                sizes.append(len(piece))
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' is no UTF-8 at byte {sum(sizes) + error.start:,} (0x{error.object[error.start]:02x}:"
            f" {error.reason}); convert it, or leave it out. Nothing was written"
        ) from error
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error}") from error
    parts, start = [], 0
    for index, size in enumerate(sizes):
        parts.append(FilePart(path, start, start + size, index == len(sizes) - 1, digest.digest()))
        start += size
    return parts


def find_files(source: str, pattern: str) -> list[Path]:
    """The text files of a source: itself, those below a folder whose names match, sorted, or Python's own.

    Raises `DataError`: it is not there, or a folder without such files.
    """
    if source == PYTHON:
        return [library() / name for name in read_sources(library())]
    path = Path(source)
    if not path.exists():
        raise missing("the source", path, f"text files, folders of them, {HUB}NAME of the Hugging Face hub, {PYTHON}")
    if not path.is_dir():
        return [path]
    try:
        found = sorted((file for file in path.rglob(pattern) if file.is_file()), key=lambda file: file.as_posix())
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"the pattern is '{pattern}': {error}; allowed: one such as '*.txt'") from error
    if not found:
        raise DataError(
            f"the source '{path}' holds no files whose names match '{pattern}'; allowed: another pattern, such as"
            " --pattern '*.md'"
        )
    return found


def open_rows(source: str, split: str, column: str) -> Iterator[RowPart]:
    """The rows of a data set, ``hf:NAME`` or ``hf:NAME:CONFIGURATION``, that hold text.

    Raises `DataError`: no `datasets` library, no such data set, split or column, rows that are no text.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise missing_package(f"the source is '{source}'", error, name="datasets", install="datasets") from error
    name, _, configuration = source.removeprefix(HUB).partition(":")
    try:
        rows = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:  # whatever the library raises: not there, no network, no such split
        raise DataError(
            f"the source '{source}' with split '{split}' cannot be loaded ({type(error).__name__}: {error})"
        ) from error
    if column not in rows.column_names:
        raise DataError(f"the source '{source}' has no column '{column}'; allowed: {', '.join(rows.column_names)}")
    return _rows(rows, source, column)


def _rows(rows: Any, source: str, column: str) -> Iterator[RowPart]:
    index = 0
    for batch in rows.iter(batch_size=_ROWS):
        for content in batch[column]:
            if not isinstance(content, str):
                raise DataError(f"row {index:,} of '{source}' has {type(content).__name__} in '{column}', not text")
            if content:
                yield RowPart(f"row {index:,} of '{source}'", content)
            index += 1
