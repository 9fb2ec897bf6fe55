"""Images from an FFCV file: the fast loader, and what makes it safe.

FFCV brings the file format, its loader's memory map and compiled pipeline, and the JPEG decoder and resizing. Three
things take the place of its own, because an error in its loading thread hangs training for ever:

- `_Guarded`, its epoch's thread: hands errors over, keeps a time limit, ends when the epoch is left, and gives every
  batch memory of its own in place of a slot of a ring that is written again.
- `_Crop`, its decoder: cuts and flips as `vmoe.data.crops` says. What is drawn follows from (seed, epoch, image) and
  not from the states of the threads that happen to decode; JPEG data that cannot be decoded is an error, where FFCV
  returns a grey image; and there is one compiled function for training and evaluation, without random numbers, in
  place of a larger one for each: half a minute of compilation becomes a few seconds.
- labels come from the file's index, not through a pipeline.

Importing this module needs ffcv; `vmoe.data.open` does so only when it is asked for.
"""

from __future__ import annotations

import queue
from dataclasses import replace
from functools import cache
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numba
import numba.typed
import numpy as np
import torch

from vmoe.config.schema import ImageDataConfig

from .crops import Crops, central_crops, random_crops
from .errors import DataError, no_batch
from .loader import Batch, Batches
from .order import Indices, Keys, Order, batches_of
from .ordered import OrderedLoader
from .sizes import Sizes

_TypedDict, _torch_threads = numba.typed.Dict, torch.get_num_threads()
numba.typed.Dict = dict  # ffcv.fields makes a typed dictionary of two entries, which takes seconds to compile
try:
    from ffcv.fields import IntField as IntField
    from ffcv.fields import RGBImageField as RGBImageField
    from ffcv.fields.rgb_image import IMAGE_MODES as IMAGE_MODES
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.libffcv import imdecode as imdecode
    from ffcv.libffcv import resize_crop
    from ffcv.loader import Loader as Pipeline
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.reader import Reader as Reader
    from ffcv.types import HeaderType as HeaderType
finally:
    numba.typed.Dict = _TypedDict
    torch.set_num_threads(_torch_threads)  # importing FFCV sets them to one

if TYPE_CHECKING:
    from .beton import Beton

_READ_AHEAD = 2  # batches, besides the one that is being read


class FFCVLoader(OrderedLoader):
    """Reads a .beton file in `workers` threads and one that leads them.

    training: random resized crop and flip; otherwise a central crop. Both resize as FFCV does, by area; any number
    of workers gives the same pixels. FFCV's code is compiled while the first batch is made.
    """

    def __init__(
        self,
        file: Beton,
        classes: tuple[str, ...],
        order: Order,
        data: ImageDataConfig,
        *,
        training: bool,
        workers: int,
        sizes: Sizes | None = None,
    ) -> None:
        super().__init__(file, classes, order, data, training=training, workers=workers, sizes=sizes)
        self.file = file
        self.timeout = data.timeout
        workers = min(workers, numba.config.NUMBA_NUM_THREADS)
        torch_threads = torch.get_num_threads()
        try:
            self.pipeline = Pipeline(
                str(file.path),
                batch_size=order.batch_size,
                num_workers=workers,
                seed=0,  # of an order that is not used
                pipelines={"image": [_Crop(data.image_size, parallel=workers > 1)], "label": None},
                batches_ahead=_READ_AHEAD,
            )
        finally:
            torch.set_num_threads(torch_threads)  # FFCV gives torch as many threads as itself
        manager = self.pipeline.memory_manager
        for unused in (manager.ptr_to_size, manager.sample_to_pages, manager.page_to_samples):
            unused.clear()  # tables of a cache that is not used: 0.6 kB an image

    def epoch(self, number: int, first: int = 0) -> Batches:
        """See `Loader.epoch`."""
        batches = _Guarded(self, list(batches_of(self._order, number, first)), self._sizes.at(number))
        try:
            yield from batches
        finally:
            batches.close()

    def crops(self, indices: Indices, keys: Keys) -> Crops:
        """What is cut from each of these images (B, 5), given a random number for each."""
        heights, widths, data = self.file.heights[indices], self.file.widths[indices], self._data
        if self._training:
            return random_crops(heights, widths, keys, scale=data.crop_scale, ratio=data.crop_ratio, flip=data.flip)
        return central_crops(heights, widths, share=data.eval_crop)


class _Guarded(EpochIterator):
    """FFCV's epoch thread, made to hand over errors, to keep a time limit, and to end with the epoch.

    Yields (images, labels). `__next__` raises what the thread raised, or `TimeoutError`.
    """

    def __init__(self, loader: FFCVLoader, batches: list[tuple[Indices, Keys]], size: int) -> None:
        self._owner = loader
        self._batches = batches
        self._size = size
        self._patience = loader.timeout
        self._node = loader.pipeline.graph.leaf_nodes["image"].id
        order = np.concatenate([indices for indices, _ in batches]) if batches else np.empty(0, np.int64)
        super().__init__(loader.pipeline, order)  # starts the thread

    def run(self) -> None:
        try:
            numba.set_num_threads(self.loader.num_workers)
            for number, (indices, keys) in enumerate(self._batches):
                if not self._hand_over(self._read(number, indices, keys)):
                    return
            self._hand_over(None)
        except BaseException as error:
            self._hand_over(error)

    def _read(self, number: int, indices: Indices, keys: Keys) -> Batch:
        size, path = self._size, self._owner.file.path
        images = torch.empty(len(indices), size, size, 3, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        broken = np.zeros(len(indices), np.bool_)
        memory = images.numpy(), self._owner.crops(indices, keys), broken
        self.memory_allocations["operation"][self._node] = tuple(part[None] for part in memory)  # one slot
        self.run_pipeline(number, indices, 0, None)
        if broken.any():
            raise DataError(
                f"image {indices[broken][0]} of '{path}' is no valid image data; the file is damaged: copy or write it"
                " again (`vmoe verify` compares a file with its sidecar)"
            )
        return images.permute(0, 3, 1, 2), torch.from_numpy(self._owner.file.labels[indices])

    def _hand_over(self, item: Batch | BaseException | None) -> bool:
        """Wait until there is room for the item; False when nobody wants it any more."""
        while not self.terminate_event.is_set():
            try:
                self.output_queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def __next__(self) -> Batch:
        limit, path = self._owner.timeout, self._owner.file.path
        try:
            item = self.output_queue.get(timeout=limit)
        except queue.Empty:
            self._patience = 0.0  # do not wait for a thread that may never come back
            raise no_batch(path, limit) from None
        if item is None:
            raise StopIteration
        if isinstance(item, DataError):
            raise item
        if isinstance(item, BaseException):
            raise RuntimeError(f"reading '{path}' failed: {type(item).__name__}: {item}") from item
        return item

    def close(self) -> None:
        super().close()
        if self.is_alive() and get_ident() != self.ident:  # FFCV's `__del__` closes too, maybe in the thread itself
            self.join(self._patience)


class _Crop(SimpleRGBImageDecoder):
    """FFCV's decoder of an image pipeline: decodes, crops, resizes to (size, size, 3) and flips.

    Its memory, which `_Guarded` provides, is (images, crops, broken).
    """

    def __init__(self, size: int, *, parallel: bool) -> None:
        super().__init__()
        self._size = size
        self._parallel = parallel

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        shape = (self._size, self._size, 3)
        return replace(previous_state, jit_mode=True, shape=shape, dtype=np.dtype("u1")), None

    def generate_code(self) -> Any:
        cut = _compiled(self._parallel)

        def decode(indices, memory, index, storage):  # type: ignore[no-untyped-def]  # numba's argument types
            images, crops, broken = memory
            data, addresses, sizes = storage
            cut(indices, images, crops, broken, index, data, addresses, sizes)
            return images

        return decode


@cache
def _compiled(parallel: bool) -> Any:
    return numba.njit(nogil=True, parallel=parallel)(_cut)


_decode_jpeg = numba.njit(nogil=True)(imdecode)
_resize_crop = numba.njit(nogil=True)(resize_crop)
_JPG = IMAGE_MODES["jpg"]


def _cut(indices, images, crops, broken, index, data, addresses, sizes):  # type: ignore[no-untyped-def]
    """Make the samples of a batch: images[k] (S, S, 3) is crops[k] of stored image indices[k], resized by area.

    broken[k] is set where the stored bytes are no image. index: the image column of the file's index; data: the file's
    bytes; addresses, sizes: where each stored image begins, in order, and its bytes. Compiled by numba.
    """
    for k in numba.prange(len(indices)):
        entry = index[indices[k]]
        height, width, address = np.uint32(entry["height"]), np.uint32(entry["width"]), entry["data_ptr"]
        place = np.searchsorted(addresses, address)
        stored = data[address : address + (sizes[place] if place < len(sizes) else 0)]
        if entry["mode"] == _JPG:
            pixels = np.empty((height, width, 3), np.uint8)
            result = _decode_jpeg(stored, pixels, height, width, height, width, 0, 0, 1, 1, False, False)
            broken[k] = result != 0
        elif stored.size == 3 * height * width:
            pixels = stored.reshape(height, width, 3)
        else:
            broken[k] = True
            continue
        top, left, tall, wide, flipped = crops[k]
        image = images[k]
        _resize_crop(pixels, top, top + tall, left, left + wide, image)
        if flipped:
            for row in range(image.shape[0]):
                for column in range(image.shape[1] // 2):
                    for channel in range(3):
                        value = image[row, column, channel]
                        image[row, column, channel] = image[row, -1 - column, channel]
                        image[row, -1 - column, channel] = value
