"""From the config's `data` section to loaders, with all that can be checked checked before any work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vmoe.config.schema import DIGITS, ImageDataConfig

from .digits import materialise
from .errors import DataError, missing_package
from .folder import FolderLoader
from .images import ClassFolders, scan_classes
from .loader import Loader, Loaders, Processes, Share, cores
from .matching import Match, check_same, match_classes
from .order import EvaluationOrder, Order, TrainingOrder
from .sizes import Sizes

if TYPE_CHECKING:
    from .beton import Beton

Classes = tuple[str, ...]


def open_loaders(
    data: ImageDataConfig,
    *,
    seed: int,
    batch_size: int,
    accumulate: int = 1,
    epochs: int = 1,
    processes: Processes | None = None,
) -> Loaders:
    """The loaders of a training run.

    seed: of orders and augmentation. batch_size: images a batch on each process. accumulate: batches an optimizer
    step; an epoch of training has a multiple of it. epochs: of training, over which data.progressive stretches.
    processes: default, this one alone.

    Raises `DataError` (a `ValueError`; also a `FileNotFoundError` for a path that is missing), whose message begins
    with the key: paths that are missing, of the other loader's kind or damaged; fewer images than a step; classes of
    the two splits that differ; FFCV not installed.
    """
    processes = processes or Share()
    if batch_size < 1:
        raise DataError(f"data.batch_size makes batches of {batch_size} images; allowed: 1 or more a process")
    train, val = _open(data, data.train, "data.train"), _open(data, data.val, "data.val")
    classes = _agree(train, "data.train", val, "data.val")
    step = batch_size * processes.world * accumulate
    if len(train.labels) < step:
        raise DataError(
            f"data.train is '{train.path}' with {len(train.labels):,} images, fewer than one optimizer step takes:"
            f" data.batch_size is {step:,} ({processes.world} processes × {accumulate} batches × {batch_size});"
            f" allowed: at most {len(train.labels):,}"
        )
    order = TrainingOrder(len(train.labels), batch_size, processes, seed, accumulate, data.repeats)
    sizes = Sizes.of(data, epochs)
    return Loaders(
        _loader(data, train, classes, order, processes, training=True, sizes=sizes),
        _loader(data, val, classes, _evaluation_order(data, val, processes), processes, training=False),
    )


def open_evaluation(
    data: ImageDataConfig,
    path: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    key: str = "data.val",
    match: Match = "same",
    processes: Processes | None = None,
) -> Loader:
    """The loader of an evaluation, over every image once.

    path: as data.val, which is the default; key: what it is called in errors. classes: those of the model, to which the
    classes of the data stand as `match` says; labels are then the model's, whatever number the data give a class.

    Raises `DataError`, as `open_loaders` does.
    """
    processes = processes or Share()
    split = _open(data, path or data.val, key)
    names = _named(split)
    if classes is not None:
        split, names = _labelled(split, key, tuple(classes), match), tuple(classes)
    return _loader(data, split, names, _evaluation_order(data, split, processes), processes, training=False)


def _open(data: ImageDataConfig, path: str, key: str) -> ClassFolders | Beton:
    if path == DIGITS:
        train, test = materialise(data.cache / DIGITS, data.loader)
        path = str(train if key == "data.train" else test)
    if data.loader == "folder":
        if Path(path).is_file():
            raise DataError(
                f"{key} is '{path}', a file; allowed with data.loader=folder: an image folder, with one folder a"
                " class; data.loader=ffcv reads .beton files"
            )
        return scan_classes(Path(path), key)
    try:
        from .beton import open_beton
    except ImportError as error:
        raise missing_package("data.loader is 'ffcv'", error, "; or set data.loader=folder") from error
    return open_beton(Path(path), key)


def _labelled(split: ClassFolders | Beton, key: str, classes: Classes, match: Match) -> ClassFolders | Beton:
    """The data with the labels that a model of these classes has for them."""
    if split.classes is not None:
        return replace(split, labels=match_classes(split.classes, key, classes, match)[split.labels])
    if match != "same":
        raise DataError(
            f"{key} is '{split.path}', whose classes have no names, since it has no sidecar; allowed: a file that `vmoe"
            f" write` made, or classes matched as 'same', not {match!r}"
        )
    _check_labels(split, key, len(classes), "the model")
    return split


def _loader(
    data: ImageDataConfig,
    split: ClassFolders | Beton,
    classes: Classes,
    order: Order,
    processes: Processes,
    *,
    training: bool,
    sizes: Sizes | None = None,
) -> Loader:
    workers = data.workers or cores(processes)
    if isinstance(split, ClassFolders):
        return FolderLoader(split, classes, order, data, training=training, workers=workers, sizes=sizes)
    from .ffcv import FFCVLoader

    return FFCVLoader(split, classes, order, data, training=training, workers=workers, sizes=sizes)


def _evaluation_order(data: ImageDataConfig, split: ClassFolders | Beton, processes: Processes) -> EvaluationOrder:
    return EvaluationOrder(len(split.labels), data.eval_batch_size, processes)


def _agree(train: ClassFolders | Beton, train_key: str, val: ClassFolders | Beton, val_key: str) -> Classes:
    """The classes of both splits. A .beton file without a sidecar names none: its labels must fit the other's."""
    if train.classes is not None and val.classes is not None:
        check_same(val.classes, val_key, train.classes, train_key)
        return train.classes
    if train.classes is None and val.classes is not None:
        _check_labels(train, train_key, len(val.classes), val_key)
        return val.classes
    _check_labels(val, val_key, len(_named(train)), train_key)
    return _named(train)


def _named(split: ClassFolders | Beton) -> Classes:
    return split.classes or tuple(map(str, range(split.labels.max() + 1)))


def _check_labels(split: ClassFolders | Beton, key: str, classes: int, other: str) -> None:
    largest = split.labels.max()
    if largest >= classes:
        raise DataError(
            f"{key} is '{split.path}' with labels up to {largest}; allowed: 0 to {classes - 1}, the classes of {other}"
        )
