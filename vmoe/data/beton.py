"""What an FFCV file holds: its index, checked before anything is read by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmoe.untrusted import open_file

from .errors import DataError, missing
from .ffcv import IMAGE_MODES, HeaderType, IntField, Reader, RGBImageField, imdecode
from .names import read_names
from .sidecar import read_sidecar

MOST_PIXELS = 2**28  # of an image: 16,384 × 16,384, 0.8 GB in memory
MOST_CLASSES = 2**20  # of a file without a sidecar
_LEAST = 8  # bytes that a sample or a field takes at least
_FIELDS = {"image": RGBImageField, "label": IntField}


@dataclass(frozen=True)
class StoredImage:
    """One image of a file, decoded: pixels (H, W, 3) uint8."""

    pixels: NDArray[np.uint8]
    compressed: bool


@dataclass(frozen=True, eq=False)
class Beton:
    """An FFCV file and what its index says. classes: None for a file without a sidecar.

    labels (N,), heights (N,), widths (N,): int64, of the stored images.
    """

    path: Path
    classes: tuple[str, ...] | None
    labels: NDArray[np.int64]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]

    def names(self) -> tuple[str, ...] | None:
        """The file of each image, relative to the folder that was written; None where they were not kept.

        Raises `DataError` where they were, and cannot be read.
        """
        return read_names(self.path, read_sidecar(self.path))


def open_beton(path: Path, key: str) -> Beton:
    """Read the index of an FFCV file and check that the file is whole, holds images and labels, and fits its sidecar.

    key: what the path is called in errors. Raises `DataError`. JPEG data is not looked at: see `verify_beton`.
    """
    if not path.exists():
        raise missing(key, path, "a .beton file (`vmoe write` makes one)")
    if path.is_dir():
        raise DataError(
            f"{key} is '{path}', a folder; allowed with data.loader=ffcv: a .beton file (`vmoe write` makes"
            " one); data.loader=folder reads image folders"
        )
    name = f"{key} is '{path}'"
    sidecar = read_sidecar(path)
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
    except OSError as error:
        raise DataError(f"{name}, which cannot be read: {error.strerror or error}") from error
    if sidecar and size != sidecar.bytes:
        raise DataError(
            f"{name}, which has {size:,} bytes where its sidecar says {sidecar.bytes:,}; it was cut short"
            " or exchanged: copy or write it again, with its sidecar"
        )
    reader = _read_index(path, name, size)
    if sidecar and reader.num_samples != sidecar.samples:
        raise DataError(
            f"{name}, which holds {reader.num_samples:,} images where its sidecar says"
            f" {sidecar.samples:,}; copy or write it again, with its sidecar"
        )
    if not reader.num_samples:
        raise DataError(f"{name}, which holds no images; write it again")
    columns = dict(zip(reader.field_names, (reader.metadata[f"f{i}"] for i in range(reader.num_fields)), strict=True))
    labels = columns["label"].astype(np.int64)
    classes = sidecar.classes if sidecar else None
    number = len(classes) if classes else MOST_CLASSES
    wrong = np.flatnonzero((labels < 0) | (labels >= number))
    if wrong.size:
        allowed = f"0 to {number - 1}" + (", the classes of its sidecar" if classes else "")
        raise DataError(f"{name}, where image {wrong[0]} has label {labels[wrong[0]]}; allowed: {allowed}")
    image = columns["image"]
    _check_images(image, reader.alloc_table, name)
    return Beton(path, classes, labels, image["height"].astype(np.int64), image["width"].astype(np.int64))


def _read_index(path: Path, name: str, size: int) -> Reader:
    """FFCV's reader, which believes every file, with the checks it leaves out."""
    _check_header(path, name, size)
    try:
        reader = Reader(str(path))
    except Exception as error:  # FFCV meets arbitrary bytes and answers with whatever they lead to
        raise DataError(
            f"{name}, which is no .beton file of FFCV, is cut short or cannot be read ({error or 'empty'});"
            " data.loader=folder reads image folders, `vmoe write` makes a .beton file from one"
        ) from error
    fields = dict(zip(reader.field_names, map(type, reader.handlers.values()), strict=True))
    if fields != _FIELDS:
        has = ", ".join(f"{field} ({kind.__name__})" for field, kind in fields.items())
        needs = ", ".join(f"{field} ({kind.__name__})" for field, kind in _FIELDS.items())
        raise DataError(f"{name}, whose fields are {has}; allowed: {needs}")
    table, end = reader.alloc_table, int(reader.header["alloc_table_ptr"])
    whole = end > 0 and size == end + table.nbytes and len(table) == reader.num_samples == len(reader.metadata)
    if not whole or (table["ptr"] + table["size"]).max(initial=0) > end:
        raise DataError(f"{name}, which is cut short, or was not written to its end; copy or write it again")
    return reader


def _check_header(path: Path, name: str, size: int) -> None:
    """Compare what the header says there is with the size of the file, before FFCV makes room for it."""
    with open_file(path) as file:
        header = np.frombuffer(file.read(HeaderType.itemsize), HeaderType.newbyteorder("<"), 1) if size >= 99 else None
    if header is None or (int(header["num_samples"][0]) + int(header["num_fields"][0])) * _LEAST > size:
        raise DataError(f"{name}, which is no .beton file of FFCV, or is cut short; copy or write it again")


def _check_images(image: NDArray[Any], table: NDArray[Any], name: str) -> None:
    """Raise `DataError` for images that no file holds: decoding them would take any memory, or end the process."""
    pixels = image["height"].astype(np.int64) * image["width"]
    if (wrong := np.flatnonzero((pixels < 1) | (pixels > MOST_PIXELS))).size:
        height, width = image["height"][wrong[0]], image["width"][wrong[0]]
        raise DataError(f"{name}, where image {wrong[0]} has {width} × {height} pixels; allowed: 1 to {MOST_PIXELS:,}")
    if (wrong := np.flatnonzero(~np.isin(image["data_ptr"], table["ptr"]))).size:
        raise DataError(f"{name}, where image {wrong[0]} lies nowhere in the file; copy or write it again")
    if (wrong := np.flatnonzero(~np.isin(image["mode"], list(IMAGE_MODES.values())))).size:
        raise DataError(f"{name}, where image {wrong[0]} is stored in an unknown way; copy or write it again")


def read_stored(path: Path, indices: NDArray[np.int64]) -> list[StoredImage]:
    """Some of a file's images as they are stored. Raises `DataError` where JPEG data cannot be decoded."""
    reader = Reader(str(path))
    column = reader.metadata[f"f{reader.field_names.index('image')}"]
    sizes = dict(zip(reader.alloc_table["ptr"].tolist(), reader.alloc_table["size"].tolist(), strict=True))
    data = np.memmap(path, np.uint8, mode="r")
    images = []
    for index in indices.tolist():
        entry = column[index]
        start, height, width = int(entry["data_ptr"]), int(entry["height"]), int(entry["width"])
        stored = data[start : start + sizes[start]]
        compressed = entry["mode"] == IMAGE_MODES["jpg"]
        pixels = np.empty((height, width, 3), np.uint8)
        if not compressed:
            pixels[:] = stored.reshape(pixels.shape)
        elif imdecode(stored, pixels, height, width, height, width, 0, 0, 1, 1, False, False):
            raise DataError(f"image {index} of '{path}' is not valid JPEG data")
        images.append(StoredImage(pixels, bool(compressed)))
    return images
