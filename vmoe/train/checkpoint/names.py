"""Names of one file in the folder of checkpoints: hard links, each put in place at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vmoe.files import replacing


def give_name(file: Path, name: Path) -> None:
    """Another name for a file, in the place of what has it; the file keeps those it has. Raises `OSError`."""
    with replacing(name) as temporary:
        link_or_copy(file, temporary)


def link_or_copy(file: Path, name: Path) -> None:
    """A hard link, or a copy where the file system has none. Raises `OSError`."""
    try:
        os.link(file, name)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(file, name)


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed has left half written. Nothing else writes into the folder now."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
