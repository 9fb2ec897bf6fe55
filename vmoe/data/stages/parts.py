"""The pieces of work that make a training sample, each to be timed alone, in one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from vmoe.config.schema import ImageDataConfig

from ..order import Indices, Order, batches_of

READ, DECODE, CROP, COLLATE = "read", "decode", "crop and resize", "collate"


class Part(NamedTuple):
    """A piece of work on so many images."""

    name: str
    images: int
    work: Callable[[], object]


@dataclass(frozen=True)
class Sample:
    """What the images are like: of those that the parts work on, their mean.

    bytes: stored. side: the shorter one, in pixels. compressed: the share that has to be decoded. resident: the share
    of what is read that was in the page cache, None where that is not known.
    """

    bytes: float
    side: float
    compressed: float
    resident: float | None


class Stages(NamedTuple):
    """parts: in the order in which a sample passes them."""

    parts: list[Part]
    sample: Sample


def stages_of(loader: Any, data: ImageDataConfig, images: int) -> Stages:
    """The parts of a training loader's work on so many images a time, by the loader's own functions.

    loader: of `open_loaders`, for that data.loader. Reading takes other images every time, as long as there are some.
    """
    if data.loader == "folder":
        from .folder import folder_stages

        return folder_stages(loader, data, images)
    from .ffcv import ffcv_stages

    return ffcv_stages(loader, images)


def fresh_indices(order: Order, images: int) -> Iterator[Indices]:
    """So many images at a time in the order of training, epoch after epoch; fewer at an epoch's end."""
    for epoch in count():
        indices = order.indices(epoch)
        for start in range(0, len(indices), images):
            yield indices[start : start + images]


def first_batch(order: Order, images: int) -> tuple[Indices, Any]:
    """So many images of the first epoch at most, and their random numbers."""
    indices, keys = next(batches_of(order, 0))
    return indices[:images], keys[:images]
