"""Errors about data: sentences that name the key or file, what is wrong with it and what to do."""

from __future__ import annotations

import difflib
from pathlib import Path


class DataError(ValueError):
    """Data that cannot be used as asked; the message says which, why and what to do."""


class MissingDataError(DataError, FileNotFoundError):
    """A path that does not exist."""


def no_batch(path: Path, seconds: float) -> TimeoutError:
    """The error for a loader that gave nothing within data.timeout."""
    return TimeoutError(
        f"no batch from '{path}' within {seconds:g} seconds (data.timeout): is its disk still there, or is one batch"
        " more work than that?"
    )


def lost_worker(path: Path | str, error: RuntimeError) -> DataError | None:
    """The error for a loader one of whose processes is gone, if that is what torch says, which has no class for it."""
    told = str(error).splitlines()[0] if str(error) else ""
    if "DataLoader worker" not in told:
        return None
    return DataError(
        f"a process that read '{path}' is gone: {told.rstrip('.')}. The system kills processes where memory runs out;"
        " allowed: fewer data.workers, or another start"
    )


def missing(key: str, path: Path, allowed: str) -> MissingDataError:
    """The error for a path that is not there, with the nearest name beside it."""
    return MissingDataError(f"{key} is '{path}', which does not exist{_nearest(path)}; allowed: {allowed}")


def _nearest(path: Path) -> str:
    """A hint at the first part of the path that is missing, if its folder holds something of a similar name."""
    while not path.parent.exists():
        path = path.parent
    if not path.parent.is_dir():
        return f" ('{path.parent}' is a file)"
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f" (nearest: '{path.parent / close[0]}')" if close else ""


def listing(names: list[str], most: int = 5) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"{name[:60]}…" if len(name) > 60 else name for name in names[:most]) + more


def missing_package(
    what: str, error: ImportError, otherwise: str = "", *, name: str = "FFCV", install: str = "vmoe[ffcv]"
) -> DataError:
    """The error for a package, `name`, or something it needs, that cannot be imported; install: what pip is given."""
    return DataError(f"{what}, but {name} cannot be imported ({error}): pip install '{install}'{otherwise}")
