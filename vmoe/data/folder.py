"""Images from ordinary class folders, through timm's transforms: bicubic, no conversion, no FFCV.

The same contract and the same orders as the FFCV loader; crops are drawn by timm, so they differ from FFCV's.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vmoe.config.schema import ImageDataConfig

from .errors import DataError, lost_worker, no_batch
from .images import ClassFolders, read_image
from .loader import Batch, Batches
from .order import Indices, Keys, Order, batches_of
from .ordered import OrderedLoader
from .sizes import Sizes

Transform = Callable[[Image.Image], Tensor]


class Request(NamedTuple):
    """A batch to make: which images (B,), a random number for each (B,), and their side in pixels."""

    indices: Indices
    keys: Keys
    size: int


class FolderLoader(OrderedLoader):
    """Reads class folders in `workers` processes, which stay alive between epochs of training.

    Augmentation is seeded for each image from the order's random numbers: any number of workers gives the same
    pixels. training: random resized crop and flip; otherwise resize and central crop.
    """

    def __init__(
        self,
        folders: ClassFolders,
        classes: tuple[str, ...],
        order: Order,
        data: ImageDataConfig,
        *,
        training: bool,
        workers: int,
        sizes: Sizes | None = None,
    ) -> None:
        super().__init__(folders, classes, order, data, training=training, workers=workers, sizes=sizes)
        self._path = folders.path
        self._timeout = data.timeout
        self._reading = _Reading(order, self._sizes)
        self._loader = DataLoader(
            _Batches(folders, data, training=training),
            sampler=self._reading,
            batch_size=None,  # the dataset makes whole batches
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            timeout=data.timeout,
            persistent_workers=training,
            worker_init_fn=leave_group if workers else None,
        )

    def epoch(self, number: int, first: int = 0) -> Batches:
        """See `Loader.epoch`."""
        self._reading.start = number, first
        batches = iter(self._loader)
        failure: Exception | None = None
        try:
            for batch in batches:
                if isinstance(batch, str):
                    failure = DataError(batch)
                    break
                yield batch
        except RuntimeError as error:
            timed_out = no_batch(self._path, self._timeout) if "timed out" in str(error) else None
            failure = timed_out or lost_worker(self._path, error)
            if failure is None:
                raise
        finally:
            del batches  # and with it its workers
        if failure is not None:
            raise failure  # not earlier: its traceback would keep the iterator


def leave_group(worker: int) -> None:
    """Let a worker process have a group of its own: a terminal and a launcher signal whole groups, and the process that
    has the workers decides what to do with them.
    """
    os.setpgid(0, 0)


class _Reading(Sampler[Request]):
    """The batches of the epoch that `start`, (epoch, first batch), says."""

    def __init__(self, order: Order, sizes: Sizes) -> None:
        self.start = 0, 0
        self._order = order
        self._sizes = sizes

    def __iter__(self) -> Iterator[Request]:
        size = self._sizes.at(self.start[0])
        return (Request(*batch, size) for batch in batches_of(self._order, *self.start))

    def __len__(self) -> int:
        return self._order.batches - self.start[1]


class _Batches(Dataset[Batch | str]):
    """Maps a request to its batch, or to what is wrong with an image.

    An error travels as its sentence: one raised in a worker would reach the user wrapped in the worker's traceback.
    """

    def __init__(self, folders: ClassFolders, data: ImageDataConfig, *, training: bool) -> None:
        self._files = folders.files
        self._labels = torch.from_numpy(folders.labels)
        self._data = data
        self._training = training

    def __getitem__(self, request: Request) -> Batch | str:
        indices, keys, size = request
        transform = transform_of(self._data, size, training=self._training)
        try:
            images = [
                self._read(index, key, transform) for index, key in zip(indices.tolist(), keys.tolist(), strict=True)
            ]
        except DataError as error:
            return str(error)
        return torch.stack(images), self._labels[torch.from_numpy(indices)]

    def _read(self, index: int, key: int, transform: Transform) -> Tensor:
        random.seed(key)  # timm's crop draws from `random`, torchvision's flip from torch
        torch.manual_seed(key & (2**63 - 1))
        return transform(read_image(self._files[index]))


@lru_cache(maxsize=4)
def transform_of(data: ImageDataConfig, size: int, *, training: bool) -> Transform:
    """What makes a sample of an image, as uint8 (3, size, size)."""
    if not training:
        return evaluation_transform(size, data.eval_crop, data.eval_interpolation)
    from timm.data import create_transform

    return create_transform(
        size,
        is_training=True,
        scale=data.crop_scale,
        ratio=data.crop_ratio,
        hflip=data.flip,
        color_jitter=None,
        interpolation="bicubic",
        use_prefetcher=True,  # uint8 (3, H, W); normalisation is the training loop's
    )


def evaluation_transform(image_size: int, eval_crop: float, interpolation: str = "bicubic") -> Transform:
    """What evaluation makes of an image: resized, its central square, uint8 (3, H, W)."""
    from timm.data import create_transform

    return create_transform(image_size, interpolation=interpolation, crop_pct=eval_crop, use_prefetcher=True)
