"""The files that images came from: known of a folder, kept beside a .beton file, whose format has no place for them.

`X.beton.files.json`, a list of paths relative to the folder that was written, in the order of the images. The sidecar
holds its digest.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vmoe.untrusted import read_file

from .errors import DataError
from .sidecar import Sidecar

Names = tuple[str, ...]

LARGEST = 2**32  # bytes; ImageNet-21k has 14 million names, half a gigabyte


def names_path(path: Path) -> Path:
    """Where the names of the .beton file `path` are kept."""
    return path.with_name(path.name + ".files.json")


def encode_names(names: Names) -> bytes:
    """The content of the file that keeps names; any name that a file can have survives it."""
    return (json.dumps(names, indent=0) + "\n").encode("ascii")


def digest_of(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_names(path: Path, sidecar: Sidecar | None) -> Names | None:
    """The names that belong to the .beton file `path`; None where it was written without them.

    Raises `DataError` where the sidecar says that there are names, and they are missing or others.
    """
    if sidecar is None or sidecar.files is None:
        return None
    where = names_path(path)
    again = f"copy it beside '{path}', or write both again with `vmoe write`"
    try:
        content = read_file(where, LARGEST)
    except OSError as error:
        raise DataError(
            f"'{where}', the file names of '{path}', cannot be read ({error.strerror or error}): {again}"
        ) from error
    if digest_of(content) != sidecar.files:
        raise DataError(f"'{where}' does not hold the file names of '{path}': its digest is another one; {again}")
    try:
        names = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{where}', the file names of '{path}', is no JSON ({str(error)[:80]}): {again}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"'{where}' holds no list of names: {again}")
    if len(names) != sidecar.samples:
        raise DataError(f"'{where}' holds {len(names):,} names of {sidecar.samples:,} images: {again}")
    return tuple(names)
