"""Image files: class folders as a data set, and one file as RGB pixels. Shared by the folder loader and the writer."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vmoe.untrusted import open_file, printable

from .errors import DataError, listing, missing

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))
"""Those that torchvision's `ImageFolder` takes for images."""

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "TIFF", "WEBP", "GIF")
"""What a file may hold, by PIL's names, whatever its suffix says: PIL would run another program for some others."""

_WIDE_MODES = ("I", "F")  # more than 8 bits a channel: converting to RGB would clip without a word


@dataclass(frozen=True, eq=False)
class ClassFolders:
    """Images in one folder a class. Labels number the folders by sorted name, as `ImageFolder` does.

    files, labels (N,): one an image. ignored: files in class folders whose suffix is no image's.
    """

    path: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    ignored: int

    def names(self) -> tuple[str, ...]:
        """The file of each image, relative to `path`."""
        return tuple(os.path.relpath(file, self.path) for file in self.files)


def scan_classes(path: Path, key: str) -> ClassFolders:
    """Find the images of every class folder of `path`, subfolders included, in sorted order.

    key: what the path is called in errors. Raises `DataError`: no such folder, no class folders, a class without
    images, or a folder that cannot be read.
    """
    try:
        if not path.exists():
            raise missing(key, path, "an image folder, with one folder a class")
        if not path.is_dir():
            raise DataError(f"{key} is '{path}', a file; allowed: an image folder, with one folder a class")
        with os.scandir(path) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir())
        if not classes:
            raise _no_classes(key, path)
        found = [files_in(path / name) for name in classes]
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{key} is '{path}', which cannot be read: {error}") from error
    empty = [name for name, (files, _) in zip(classes, found, strict=True) if not files]
    if empty:
        raise DataError(
            f"{key} is '{path}', where {len(empty)} of {len(classes)} class folders hold no image:"
            f" {listing(empty)}; remove them, or add images ({', '.join(sorted(SUFFIXES))})"
        )
    return ClassFolders(
        path,
        tuple(classes),
        files=tuple(file for files, _ in found for file in files),
        labels=np.repeat(np.arange(len(classes)), [len(files) for files, _ in found]),
        ignored=sum(ignored for _, ignored in found),
    )


def files_in(folder: Path) -> tuple[list[str], int]:
    """Image files in a folder and its folders, in sorted order, and how many other files there are.

    Links are followed. Raises `OSError` for a folder that cannot be read, and `DataError` where a folder is met a
    second time, as one that holds itself is: there may be no end of ways to it.
    """
    files: list[str] = []
    ignored = 0
    met: dict[tuple[int, int], str] = {}
    left = [str(folder)]
    while left:
        parent = left.pop()
        found = os.stat(parent)
        before = met.setdefault((found.st_dev, found.st_ino), parent)
        if before != parent:
            raise DataError(f"'{_one_line(parent)}' is the same folder as '{_one_line(before)}'; remove the link")
        with os.scandir(parent) as entries:
            folders: list[str] = []
            names: list[str] = []
            for entry in entries:
                (folders if entry.is_dir() else names).append(entry.name)
        images = [name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES]
        files += [os.path.join(parent, name) for name in images]
        ignored += len(names) - len(images)
        left += [os.path.join(parent, name) for name in folders]
    return sorted(files, key=os.path.split), ignored


def _no_classes(key: str, path: Path) -> DataError:
    images, _ = files_in(path)
    if images:
        return DataError(
            f"{key} is '{path}', which holds {len(images):,} images but no class folders; allowed: one folder a"
            " class (ImageNet's validation images come flat: move each into the folder of its class)"
        )
    return DataError(f"{key} is '{path}', which is empty; allowed: an image folder, with one folder a class")


def read_image(file: str) -> Image.Image:
    """The image in a file, decoded, as RGB (grey, palette and CMYK converted, transparency dropped).

    Raises `DataError` naming the file: not an image, truncated, larger than PIL's limit, or more than 8 bits a
    channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_file(file) as content, Image.open(content, formats=FORMATS) as image:
                if image.mode.startswith(_WIDE_MODES):
                    raise DataError(f"mode {image.mode} has more than 8 bits a channel; convert it to 8 bits")
                return image.convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"'{_one_line(file)}' is not read: it has more pixels than PIL's limit of {Image.MAX_IMAGE_PIXELS:,}"
            " (PIL.Image.MAX_IMAGE_PIXELS), as a decompression bomb would; shrink or remove it"
        ) from error
    except Exception as error:  # decoders of broken files raise OSError, SyntaxError, ValueError, struct.error, ...
        why = _one_line(str(error) or type(error).__name__)
        raise DataError(f"'{_one_line(file)}' cannot be read as an image: {why}") from error


def _one_line(text: str) -> str:
    return printable(text).replace("\n", "⟨U+000A⟩")
