"""A checkpoint read by a command: its parts are known to be what they should, and to go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmoe.config import override_config
from vmoe.train.checkpoint import read_checkpoint

from .tasks import assembly_of


def read_stored(path: str | Path) -> dict[str, Any]:
    """The dictionary of a checkpoint file, as `read_checkpoint`.

    Raises `FileNotFoundError`, or `ValueError` where its config is none, or its model or data are not those of it.
    """
    stored = read_checkpoint(path)
    config = override_config(stored["config"], [], str(path))
    assembly_of(config).check_stored(stored["model"], stored["data"], str(path))
    return stored
