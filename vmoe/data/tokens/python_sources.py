"""The embedded text: the sources of the standard library of the Python that runs, as bytes.

About nine million bytes to train; the validation files are whole modules of one per cent. Which they are follows from
their names, so that it hardly changes from one Python to the next; what they say does, so results compare only under
the same version, which the sidecars name.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..files import locked, temporaries
from ..sidecar import digest
from .sidecar import read_token_sidecar
from .tokenizer import BytesTokenizer
from .writer import TokenWriter, encode

VERSION = f"sources of Python {platform.python_version()}, split 1"
_VAL_SHARE = 0.01
_VAL_LEAST = 100_000  # bytes
# Tests, installed packages, programs of their own, and what was generated: tables, topics of the manual, this build.
_LEFT_OUT = {
    *("test", "tests", "site-packages", "dist-packages", "__pycache__", "ensurepip", "idlelib", "lib2to3"),
    *("turtledemo", "pydoc_data", "encodings"),
}
_GENERATED = ("_sysconfigdata", "config-")


class Split(NamedTuple):
    """Paths of modules, relative to the library's folder, sorted."""

    train: list[str]
    val: list[str]


def library() -> Path:
    """The folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def read_sources(folder: Path) -> dict[str, str]:
    """The text of each module below `folder`, by its relative path, sorted; what is no UTF-8 is left out."""
    sources = {}
    for name in sorted(_modules(folder)):
        try:
            text = (folder / name).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text:
            sources[name] = text
    return sources


def _modules(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _is_source(name)]
        for name in files:
            if name.endswith(".py") and _is_source(name):
                yield (Path(root) / name).relative_to(folder).as_posix()


def _is_source(name: str) -> bool:
    return name not in _LEFT_OUT and not name.startswith(_GENERATED)


def split(sources: dict[str, str]) -> Split:
    """One per cent of the bytes to val, and at least 100,000: the modules whose names have the smallest digests."""
    sizes = {name: len(text.encode()) for name, text in sources.items()}
    enough = max(_VAL_SHARE * sum(sizes.values()), _VAL_LEAST)
    val: list[str] = []
    for name in sorted(sources, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sum(sizes[chosen] for chosen in val) >= enough:
            break
        val.append(name)
    return Split([name for name in sources if name not in val], sorted(val))


def materialise(folder: Path) -> tuple[Path, Path]:
    """train.tokens and val.tokens in `folder`, written unless they are there, and whole.

    Several processes may ask at once: one writes, the others wait. Raises `DataError`: the folder cannot be written,
    or this Python has no sources.
    """
    targets = folder / "train.tokens", folder / "val.tokens"
    if all(map(_is_whole, targets)):
        return targets
    with locked(folder, "the sources of Python"):
        sources: dict[str, str] = {}
        for path, part in zip(targets, Split._fields, strict=True):
            if not _is_whole(path):
                sources = sources or read_sources(library())
                names = getattr(split(sources), part)
                if not names:
                    raise DataError(
                        f"the text 'python' is the sources in '{library()}', which has {len(sources)} modules: this"
                        " Python came without them; use another, or text of your own (`vmoe tokens`)"
                    )
                _write(path, {name: sources[name] for name in names})
    return targets


def _is_whole(path: Path) -> bool:
    try:
        sidecar = read_token_sidecar(path)
    except DataError:
        return False
    return sidecar is not None and path.is_file() and sidecar.source == VERSION and sidecar.sha256 == digest(path)


def _write(path: Path, sources: dict[str, str]) -> None:
    tokenizer = BytesTokenizer()
    with temporaries(path) as (file, sidecar), TokenWriter(file, tokenizer) as writer:
        for name, text in sources.items():
            writer.add(encode(tokenizer, text, ends=True, name=name))
        sidecar.write_text(writer.finish(VERSION).model_dump_json(indent=2) + "\n")
