"""A loader timed: its parts in one thread, then the whole of it with one worker and with all of them."""

from __future__ import annotations

import logging
from collections.abc import Generator
from itertools import count
from typing import Any

from torch import Tensor

from vmoe.config.schema import ImageDataConfig

from ..loader import Batch
from ..tokens import TokenLoader
from .advice import MeasuredImages, MeasuredTokens
from .parts import stages_of
from .rate import Rate, time_arrivals, time_work
from .steady import steady

logger = logging.getLogger(__name__)

IMAGES = 64  # that a part works on at a time, at most
PART, WHOLE = 0.1, 0.3  # of the seconds: up to four parts, and the whole twice
IN_FLIGHT = 3  # batches of each worker that may be under way when the first one comes


def measure_images(
    loader: Any, data: ImageDataConfig, *, processes: int, cores: int, seconds: float, batches: int
) -> MeasuredImages:
    """loader: of training, by `open_loaders`, for that data.loader, in one of so many processes that share `cores`.
    seconds: about so many in all; compiling FFCV's code and starting workers come on top. batches: that the whole
    loader is timed over at most.

    Raises `DataError` and `TimeoutError` as a loader's epoch does.
    """
    parts, sample = stages_of(loader, data, IMAGES)
    rates = {}
    for name, images, work in parts:
        rates[name] = time_work(work, images, PART * seconds)
        _log(data.loader, name, rates[name])
    workers, whole = loader._workers, {}
    for number in sorted({1, workers}):
        skip = IN_FLIGHT * number
        running = steady(loader, workers=number, batches=skip + batches + 1)
        whole[number] = time_arrivals(running.epoch(0), len, skip=skip, seconds=WHOLE * seconds, most=batches)
        del running  # and with it its worker processes
        _log(data.loader, f"whole loader, workers: {number}", whole[number])
    return MeasuredImages(
        loader=data.loader,
        workers=workers,
        processes=processes,
        cores=cores,
        image_size=data.image_size,
        sample=sample,
        parts=rates,
        one=whole[1],
        all=whole[workers],
    )


def measure_tokens(loader: TokenLoader, *, seconds: float, batches: int) -> MeasuredTokens:
    """See `measure_images`; rates are of tokens."""

    def counted(targets: Tensor) -> int:
        return targets.numel()

    rate = time_arrivals(_epochs(loader), counted, skip=2, seconds=seconds, most=batches)
    logger.info("tokens: whole loader, %s tokens/s", f"{rate.median:,.0f}")
    return MeasuredTokens(rate)


def _epochs(loader: TokenLoader) -> Generator[Batch]:
    """Its batches, epoch after epoch."""
    for number in count():
        yield from loader.epoch(number)


def _log(loader: str, stage: str, rate: Rate) -> None:
    logger.info("%s: %s, %s images/s", loader, stage, f"{rate.median:,.0f}")
