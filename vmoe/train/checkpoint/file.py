"""One checkpoint file: written whole or not at all, and read only if it is what was written."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from vmoe.files import replacing

from ..warn import first_line
from .archive import check_archive
from .contents import ADDED, FORMAT, KEYS, digest_of, plain
from .limits import check_contents
from .migrations import MIGRATIONS


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any], *, rank: float | None = None) -> None:
    """Write a checkpoint of the keys `KEYS`: a reader sees the old file or the new one.

    rank: of the evaluation of this state, if there was one. Raises `OSError`; `TypeError` for what no checkpoint holds.
    """
    contents = contents_of(checkpoint, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        write_contents(temporary, contents)


def contents_of(checkpoint: Mapping[str, Any], rank: float | None) -> dict[str, Any]:
    """What a file of this checkpoint holds, but for its digest. Tensors share their memory with those given."""
    assert set(checkpoint) - ADDED == KEYS, set(checkpoint) ^ KEYS
    contents: dict[str, Any] = plain({**checkpoint, "rank": rank})
    return contents


def write_contents(path: Path, contents: Mapping[str, Any]) -> None:
    """Write contents and their digest under a name that nobody reads yet. Raises `OSError`."""
    with path.open("wb") as file:
        watched = _Watched(file)
        try:
            torch.save({**contents, "digest": digest_of(contents)}, watched)  # type: ignore[arg-type]
        except RuntimeError:  # torch's own, of a file that ended early
            raise watched.error or OSError(f"torch could not write {path.name}") from None


class _Watched:
    """A file to write to, which keeps the error that torch replaces by one of its own."""

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def read_file(path: Path) -> dict[str, Any]:
    """The dictionary of a checkpoint file, as `read_checkpoint` gives it and with its errors."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint; a run keeps them as RUN/checkpoints/last.pt and best.pt")
    contents = load_plain(path)
    if not isinstance(contents, dict) or "format" not in contents:
        raise ValueError(f"{path}: no checkpoint of vmoe (a dense timm checkpoint is loaded by timm, then upcycled)")
    return checked(path, contents)


def checked(name: str | Path, contents: dict[str, Any], *, sharing: bool = True) -> dict[str, Any]:
    """Contents as they were written, in the format of today.

    name: of what they were read from, in errors. sharing: as in `digest_of`. Raises `ValueError`: another format, keys
    that are missing, contents that are not those of the digest.
    """
    written = contents["format"]
    allowed = (*MIGRATIONS, FORMAT)
    if type(written) is not int or written not in allowed:
        from_newer = type(written) is int and written > FORMAT
        remedy = "; a newer version of vmoe wrote it, and reads it" if from_newer else ""
        listed = ", ".join(map(str, allowed))
        raise ValueError(f"{name}: checkpoint format {written!r}; this version of vmoe reads {listed}{remedy}")
    needed = KEYS if written == 1 else KEYS | ADDED
    if missing := needed - set(contents):
        raise ValueError(f"{name}: damaged, it lacks {', '.join(sorted(missing))}")
    if unknown := set(contents) - KEYS - ADDED:
        raise ValueError(
            f"{name}: damaged, it holds {', '.join(sorted(map(repr, unknown)))[:200]}, which is no part of it"
        )
    check_contents(contents, name)  # before anything that takes long where there is too much of it
    if written > 1:
        check_digest(name, contents, sharing=sharing)
    for number in range(written, FORMAT):
        contents = MIGRATIONS[number](contents)
    return contents


def load_plain(path: Path, *, mmap: bool = False) -> Any:
    """What torch finds in a file. mmap: read tensors when they are looked at. Raises `ValueError`."""
    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it would call {unsafe[1]}" if unsafe else "it holds something else"
        raise ValueError(f"{path}: refused, since a checkpoint is plain values and tensors, and {found}") from None
    except Exception as error:  # torch's reader meets arbitrary bytes and answers with whatever they lead to
        raise ValueError(f"{path}: damaged or no checkpoint: {_brief(error)}") from None


def check_digest(name: str | Path, contents: Mapping[str, Any], *, sharing: bool = True) -> None:
    """Raise `ValueError` unless contents are those of which their digest was made. name: of the file, in errors."""
    try:
        is_whole = digest_of(contents, sharing=sharing) == contents["digest"]
    except Exception:  # a damaged file holds values of any kind
        is_whole = False
    if not is_whole:
        raise ValueError(f"{name}: damaged: its contents do not match its digest")


def _brief(error: Exception) -> str:
    """The first sentence of torch's message, or the error's name where it has none."""
    return first_line(error).split(". ")[0]
