"""The embedded data set: scikit-learn's 1,797 real handwritten digits, 8 × 8 pixels, as 1,437 to train and 360 to test.

The images are those of the UCI "Optical Recognition of Handwritten Digits" set's test part. The split is ours and
fixed: stratified, drawn once with a seeded generator whose numbers never change.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import DataError
from .files import locked
from .sidecar import digest, read_sidecar
from .sources import ArraySource
from .write import write_beton

CLASSES = tuple("0123456789")
_TEST_SHARE = 0.2
_SEED = 0
_VERSION = "vmoe digits, split 1"


class Split(NamedTuple):
    """Indices into `load_digits`, class by class, as class folders hold them: either loader reads the same order."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (1797, 8, 8, 3), the grey values 0 to 16 as 0 to 255 in three equal channels, and labels (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            f"the data set 'digits' comes with scikit-learn, which cannot be imported ({error}): pip install"
            " scikit-learn"
        ) from error
    found = load_digits()
    grey = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), found.target.astype(np.int64)


def split(labels: NDArray[np.int64]) -> Split:
    """The fixed split: a fifth of each class to test, the ten shares rounded so that they make a fifth of all."""
    generator = np.random.RandomState(_SEED)  # frozen by numpy: the same numbers in every version
    order = generator.permutation(len(labels))
    counts = np.bincount(labels)
    exact = counts * _TEST_SHARE
    shares = np.floor(exact).astype(np.int64)
    missing = -(-len(labels) // 5) - shares.sum()
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1  # largest remainders first
    test = np.concatenate([np.sort(order[labels[order] == label][:share]) for label, share in enumerate(shares)])
    train = np.setdiff1d(order, test)
    return Split(train[np.argsort(labels[train], kind="stable")], test)


def materialise(folder: Path, loader: Literal["ffcv", "folder"]) -> tuple[Path, Path]:
    """Paths of the train and test split for a loader, written into `folder` unless they are there, and whole.

    train.beton and val.beton for ``ffcv``; train and val, class folders of PNG files, for ``folder``. Several
    processes may ask at once: one writes, the others wait.
    """
    suffix = ".beton" if loader == "ffcv" else ""
    targets = folder / f"train{suffix}", folder / f"val{suffix}"
    if all(map(_is_whole, targets)):
        return targets
    with locked(folder, "the digits"):
        images, labels = load()
        for path, indices in zip(targets, split(labels), strict=True):
            if not _is_whole(path):
                _write(ArraySource(_VERSION, images[indices], labels[indices], CLASSES), path)
    return targets


def _is_whole(path: Path) -> bool:
    if path.suffix != ".beton":
        return path.is_dir()  # it got its name when it was complete
    try:
        sidecar = read_sidecar(path)
    except DataError:
        return False
    return sidecar is not None and path.is_file() and sidecar.source == _VERSION and sidecar.sha256 == digest(path)


def _write(source: ArraySource, path: Path) -> None:
    if path.suffix == ".beton":
        write_beton(source, path, mode="raw", max_resolution=None, workers=1, overwrite=True, progress=False)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        for index, (image, label) in enumerate(zip(source.images, source.labels, strict=True)):
            folder = temporary / source.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{index:04}.png")
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
