"""Memory of a training process on a CPU: kept once it was asked for."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed, where there is a glibc.

    It gives them back to the system, and every step gets its logits and activations anew, page by page: a third of the
    time of a small GPT-2's steps. The process then holds its highest memory to its end.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
