"""The archive that a checkpoint file is, looked at before torch reads it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from vmoe.untrusted import open_file


def check_archive(path: Path) -> None:
    """Raise `ValueError` for a file that is no archive as `torch.save` writes it: a zip file, nothing in it compressed,
    and no more in it than the file has bytes. What inflates, or is listed many times, could fill any memory.
    """
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # zipfile meets arbitrary bytes
        raise ValueError(f"{path}: damaged or no checkpoint: {error or type(error).__name__}") from None
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"{path}: refused, since it is compressed, and checkpoints are not: it may be a zip bomb")
    names = {member.filename for member in members}
    if len(names) < len(members) or sum(member.file_size for member in members) > size:
        raise ValueError(f"{path}: refused, since its archive lists more than the file holds: it may be a zip bomb")
    if any(".." in name.split("/") or name.startswith("/") for name in names):
        raise ValueError(f"{path}: refused, since its archive holds names that lead out of it")
