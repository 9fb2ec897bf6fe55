"""Sidecars, which say what a file must be; that of a .beton file, whose format names no classes and has no check."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vmoe.untrusted import open_file, read_file

from .errors import DataError

LARGEST = 2**26  # bytes; ImageNet-21k has 22,000 classes, half a megabyte

Model = TypeVar("Model", bound=BaseModel)


class Encoding(BaseModel):
    """How images are stored. mode: ``jpg``, ``raw``, or ``proportion``, of which a share is compressed.

    max_resolution: longer sides were shrunk to this many pixels; null: none was. quality: JPEG's, of 100.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    mode: Literal["jpg", "raw", "proportion"] = "jpg"
    max_resolution: Annotated[int, Field(ge=1, le=65535)] | None = 500
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    compress_probability: Annotated[float, Field(ge=0, le=1)] = 0.5


class Sidecar(BaseModel):
    """`X.beton.json`, beside X.beton. classes: names in the order of the labels. source: what was converted.

    files: the digest of `X.beton.files.json`, which holds the file of each image; None where they came from none, or
    where none were kept.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["vmoe.beton/1"] = "vmoe.beton/1"
    samples: Annotated[int, Field(ge=0, lt=2**63)]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: str
    image: Encoding
    source: str
    files: str | None = None

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name, times in Counter(self.classes).items() if times > 1)
            raise ValueError(f"classes holds {twice[:60]!r} twice")
        return self


def sidecar_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path) -> Sidecar | None:
    """The sidecar of the .beton file `path`; None if it has none. Raises `DataError`: unreadable, or not one."""
    return parse_sidecar(path, Sidecar, "a .beton file", "vmoe write")


def parse_sidecar(path: Path, model: type[Model], kind: str, command: str) -> Model | None:
    """The sidecar of `path`, `kind` that `command` writes; None if it has none. Raises `DataError`, as above."""
    sidecar = sidecar_path(path)
    try:
        return model.model_validate_json(read_file(sidecar, LARGEST))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        why = _brief(error) if isinstance(error, ValidationError) else error
        raise DataError(
            f"'{sidecar}' is no sidecar of {kind}; write '{path}' again with `{command}`, or, if it comes from"
            f" elsewhere, remove the sidecar: {why}"
        ) from error


def _brief(error: ValidationError) -> str:
    """The first thing that is wrong, in a line."""
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))[:60]
    given = repr(first["input"])[:60] if key and isinstance(first["input"], str | int | float | None) else ""
    return " ".join(part for part in (key, f"is {given};" if given else "", first["msg"][:200]) if part)


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_sidecar(path: Path, sidecar: Model | None) -> Model:
    """The sidecar of a file that is to be compared with it. Raises `DataError` where it has none."""
    if sidecar is None:
        raise DataError(f"'{path}' has no sidecar '{sidecar_path(path).name}' to be compared with")
    return sidecar


def check_digest(path: Path, sha256: str) -> None:
    """Compare every byte of a file with its sidecar's digest. Raises `DataError` where they differ."""
    found = digest(path)
    if found != sha256:
        raise DataError(
            f"'{path}' has the SHA-256 {found}, its sidecar {sha256}: the file is damaged; copy or write it again"
        )
