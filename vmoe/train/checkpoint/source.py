"""Whatever holds a model of vmoe: a run's file, a folder of `vmoe export`, or such a folder on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .exported import CONFIG, WEIGHTS, read_export
from .file import read_file

HUB = "hf-hub:"


def read_checkpoint(source: str | Path) -> dict[str, Any]:
    """The dictionary of a checkpoint, on the CPU, in the format of today: of a file, a folder that `vmoe export` wrote,
    or ``hf-hub:OWNER/NAME``, maybe with ``@REVISION``. Nothing in it is executed, and its contents are held against
    their digest.

    Raises `FileNotFoundError`, `OSError` where the hub cannot be asked, or `ValueError`: it is damaged, holds anything
    but plain values and tensors, is no checkpoint of vmoe, or is of a newer format.
    """
    if str(source).startswith(HUB):
        return read_export(fetch(str(source).removeprefix(HUB)), str(source))
    path = Path(source)
    return read_export(path, str(path)) if path.is_dir() else read_file(path)


def fetch(name: str) -> Path:
    """The folder that the hub's files of a model have been fetched into. Raises `OSError`; `ValueError` for no name."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    if repository.count("/") != 1:
        raise ValueError(f"{HUB}{name}: allowed: {HUB}OWNER/NAME, or {HUB}OWNER/NAME@REVISION")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS]))
    except ValueError:
        raise
    except Exception as error:  # of whatever client is beneath
        raise OSError(f"{HUB}{name} cannot be fetched: {next(iter(str(error).splitlines()), error)}") from error
