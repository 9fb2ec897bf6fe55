"""What of a file the kernel holds in its page cache, so that reading it touches no disk."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

WINDOW = 2**20  # bytes looked at in a row
WINDOWS = 256  # of a file, evenly spaced


def resident_share(paths: Sequence[Path]) -> float | None:
    """The share, from 0 to 1, of these files' pages that are in memory, estimated from windows of each.

    None where the kernel does not tell: no `mincore`, or an empty file. It answers 1 for files that the user may not
    write.
    """
    found = [window for path in paths for window in _windows(path)]
    pages = sum(pages for pages, _ in found)
    return sum(resident for _, resident in found) / pages if pages else None


def _windows(path: Path) -> list[tuple[int, int]]:
    """(pages, of them resident) of each window."""
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        if not path.stat().st_size:
            return []
        mapped = np.memmap(path, np.uint8, mode="r")
    except (AttributeError, OSError):
        return []
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    windows = -(-len(mapped) // WINDOW)
    chosen = np.unique(np.linspace(0, windows - 1, min(windows, WINDOWS)).astype(np.int64)) * WINDOW
    found = []
    for start in chosen.tolist():
        length = min(WINDOW, len(mapped) - start)
        flags = np.zeros(-(-length // mmap.PAGESIZE), np.uint8)
        if mincore(mapped.ctypes.data + start, length, flags.ctypes.data) == 0:
            found.append((len(flags), int((flags & 1).sum())))
    return found
