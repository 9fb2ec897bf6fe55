"""Which checkpoint a run goes on from: the latest one that is whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .file import load_plain, read_file

Progress = tuple[float, float]
UNKNOWN: Progress = (math.inf, math.inf)


def find_newest(paths: Sequence[Path], *, tell: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The good checkpoint of the latest training step among these, with its path; of one step the one that has been
    evaluated, then the first. None without paths.

    tell: takes a line for each damaged file that was passed over. Raises `ValueError`, which names each file and its
    damage, if none is good.
    """
    damage: list[str] = []
    for path in sorted(paths, key=claimed_progress, reverse=True):
        try:
            contents = read_file(path)
        except (ValueError, OSError) as error:
            damage.append(str(error))
            continue
        for line in damage:
            tell(f"{line}; passed over")
        if damage:
            tell(f"the newest good checkpoint is {path}, of step {contents['training']['step']}")
        return path, contents
    if damage:
        raise ValueError("no checkpoint is good: " + "; ".join(damage))
    return None


def claimed_progress(path: Path) -> Progress:
    """The training step that a file says it is of, and the one it was last evaluated at, without reading its tensors;
    what cannot say so is looked at first. Whether it is true shows when the file is read.
    """
    try:
        training = load_plain(path, mmap=True)["training"]
        return int(training["step"]), int(training["evaluated"])
    except Exception:  # arbitrary bytes, or a file system without memory maps
        return UNKNOWN
