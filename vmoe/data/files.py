"""Files that are whole or not there: locks for what several processes may want to write, and temporary names."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DataError
from .sidecar import sidecar_path


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Make `folder` and hold its lock: of several processes that come here at once, the others wait.

    what: is to be written into it, as errors call it. Raises `DataError`: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise DataError(f"{what} cannot be written into '{folder}': {error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, or its process dies
        yield


def check_free(target: Path, *, overwrite: bool) -> None:
    """Raise `DataError` where the target or its sidecar is there and not to be overwritten."""
    if not overwrite and (target.exists() or sidecar_path(target).exists()):
        raise DataError(f"'{target}' or its sidecar exists; remove both, or ask for them to be overwritten")


@contextmanager
def temporaries(target: Path) -> Iterator[tuple[Path, Path]]:
    """Names beside the target for it and its sidecar; the files get theirs at the end, or vanish with an error."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    file, sidecar = temporary, sidecar_path(temporary)
    try:
        yield file, sidecar
        os.replace(sidecar, sidecar_path(target))
        os.replace(file, target)  # last: where the target is new, its sidecar is there
    finally:
        file.unlink(missing_ok=True)
        sidecar.unlink(missing_ok=True)
