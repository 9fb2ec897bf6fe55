"""Image folders, or arrays, to .beton files: every image is looked at first, and the result is read back.

FFCV's own writer waits for ever once one image fails or a worker dies, and the file it leaves then opens as if it
were whole. Here nothing gets its final name before it has been compared with its source.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from tqdm import tqdm

from vmoe.files import replace_file

from .errors import DataError, missing_package
from .files import check_free, temporaries
from .images import scan_classes
from .names import digest_of, encode_names, names_path, read_names
from .sidecar import Encoding, Sidecar, check_digest, digest, read_sidecar, require_sidecar
from .sources import FolderSource, Source, stored_shape

_LARGEST_SIDE = 65535  # pixels: the format has 16 bits for it
_REPORTED = 20  # bad images named in one error


@dataclass(frozen=True)
class Written:
    """ignored: files that were in class folders and whose suffix is no image's."""

    path: Path
    sidecar: Sidecar
    ignored: int


def write_beton(
    source: Source | Path | str,
    target: Path | str,
    *,
    mode: Literal["jpg", "raw", "proportion"] = "jpg",
    max_resolution: int | None = 500,
    quality: int = 90,
    compress_probability: float = 0.5,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Written:
    """Write `target`, X.beton, and its sidecar X.beton.json from an image folder (one folder a class) or a source; of a
    folder also X.beton.files.json, the names of its files.

    mode: ``jpg`` compresses every image (again, with `quality`), ``raw`` none, ``proportion`` compresses a share of
    `compress_probability`. max_resolution: longer sides are shrunk to this many pixels. workers: processes; default,
    one a core this process may use. progress: show bars.

    Raises `DataError`: the folder is none of images, images that cannot be read (up to 20 named), the target is there
    and not to be overwritten, a writing process died. Then the target is as it was before, and nothing else is left.
    """
    target = Path(target)
    if target.suffix != ".beton":
        raise DataError(f"the target is '{target}'; allowed: a name that ends in .beton")
    check_free(target, overwrite=overwrite)
    encoding = _encoding(mode, max_resolution, quality, compress_probability)
    ignored = 0
    if isinstance(source, str | Path):
        folders = scan_classes(Path(source), "the source")
        source, ignored = FolderSource(folders), folders.ignored
    try:
        from .beton_writer import compare_samples, write_samples
    except ImportError as error:
        raise missing_package(f"'{target}' is to be written", error) from error

    workers = workers or len(os.sched_getaffinity(0))
    shapes = _check_images(source, encoding, workers, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporaries(target) as (beton, sidecar_file):
        write_samples(beton, source, encoding, shapes, workers, progress)
        compare_samples(beton, source, encoding, shapes)
        files = source.names()
        names = None if files is None else encode_names(files)
        sidecar = Sidecar(
            samples=len(source.labels),
            classes=source.classes,
            bytes=beton.stat().st_size,
            sha256=digest(beton),
            image=encoding,
            source=source.name,
            files=None if names is None else digest_of(names),
        )
        sidecar_file.write_text(sidecar.model_dump_json(indent=2) + "\n")
        replace_file(names_path(target), names)
    return Written(target, sidecar, ignored)


def verify_beton(path: Path | str) -> Sidecar:
    """Compare a .beton file with its sidecar: size, number of images, labels, every byte by its digest, and file names.

    Returns the sidecar. Raises `DataError`: no such file, no sidecar, or a difference.
    """
    path = Path(path)
    try:
        from .beton import open_beton
    except ImportError as error:
        raise missing_package(f"'{path}' is to be verified", error) from error
    open_beton(path, "the file")
    sidecar = require_sidecar(path, read_sidecar(path))
    check_digest(path, sidecar.sha256)
    read_names(path, sidecar)
    return sidecar


def _encoding(mode: str, max_resolution: int | None, quality: int, compress_probability: float) -> Encoding:
    values = {
        "mode": mode,
        "max_resolution": max_resolution,
        "quality": quality,
        "compress_probability": compress_probability,
    }
    try:
        return Encoding.model_validate(values)
    except ValidationError as error:
        problems = [f"{found['loc'][0]} is {found['input']!r}: {found['msg']}" for found in error.errors()]
        raise DataError("; ".join(problems)) from error


_Checked = tuple[list[tuple[int, int]], list[str]]
"""Shapes as stored of some images, and what is wrong with those that cannot be read."""


def _check_images(source: Source, encoding: Encoding, workers: int, progress: bool) -> NDArray[np.int64]:
    """Decode every image. Returns the height and width (N, 2) that each will be stored with."""
    count = len(source.labels)
    if not count:
        raise DataError(f"{source.name} holds no images")
    size = max(1, min(64, count // (4 * workers)))
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    shapes, problems = [], []
    with tqdm(total=count, desc="check images", unit="img", disable=None if progress else True) as bar:
        for part, (found, wrong) in zip(parts, _in_processes(source, encoding, parts, workers), strict=True):
            shapes += found
            problems += wrong
            bar.update(len(part))
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:_REPORTED])
        more = f"\n  and {len(problems) - _REPORTED:,} more" if len(problems) > _REPORTED else ""
        raise DataError(
            f"{len(problems):,} of {count:,} images cannot be written; mend or remove them. Nothing was"
            f" written.{shown}{more}"
        )
    return np.array(shapes)


def _in_processes(source: Source, encoding: Encoding, parts: list[range], workers: int) -> Iterator[_Checked]:
    with ProcessPoolExecutor(workers, initializer=_Checker.start, initargs=(source, encoding)) as pool:
        try:
            yield from pool.map(_Checker.check, parts)
        except BrokenProcessPool as error:
            raise DataError(
                f"a process that checked the images of {source.name} was killed, perhaps for lack of memory; use"
                " fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Checker:
    """What a checking process holds: given once at its start, for a source may name a million files."""

    source: Source
    encoding: Encoding

    @classmethod
    def start(cls, source: Source, encoding: Encoding) -> None:
        cls.source, cls.encoding = source, encoding
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it

    @classmethod
    def check(cls, part: range) -> _Checked:
        shapes, problems = [], []
        for index in part:
            try:
                height, width = cls.source.read(index).shape[:2]
            except DataError as error:
                problems.append(str(error))
                continue
            shape = stored_shape(height, width, cls.encoding.max_resolution)
            if max(shape) > _LARGEST_SIDE:
                problems.append(
                    f"image {index} of {cls.source.name} is {width} × {height} pixels; allowed: sides up to"
                    f" {_LARGEST_SIDE:,}, or a max_resolution"
                )
            shapes.append(shape)
        return shapes, problems
