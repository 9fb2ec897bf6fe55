"""How a config's data are read: by how many workers, through how much shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from vmoe.config import ImageRunConfig, RunConfig, TextRunConfig

PREFETCHED = 2  # batches that torch's DataLoader lets each worker process be ahead


class Reading(NamedTuple):
    """Of each process. workers: threads or processes. shared: bytes of batches in /dev/shm at most."""

    workers: int
    shared: int


def reading_of(config: RunConfig, processes: int) -> Reading:
    """What one of so many processes on this machine does."""
    return READINGS[config.task](config, processes)


def _of_images(config: ImageRunConfig, processes: int) -> Reading:
    from vmoe.data import Share
    from vmoe.data.loader import cores

    data = config.data
    workers = data.workers or cores(Share(world=processes, local_world=processes))
    if data.loader != "folder":
        return Reading(workers, 0)
    images = data.batch_size // (processes * config.train.accumulate) + data.eval_batch_size  # both loaders are there
    return Reading(workers, workers * PREFETCHED * images * 3 * data.image_size**2)


def _of_text(config: TextRunConfig, processes: int) -> Reading:
    return Reading(0, 0)


READINGS: dict[str, Callable[[Any, int], Reading]] = {"images": _of_images, "text": _of_text}
