"""FFCV's writing processes, watched: an error in one, its death, or a standstill ends the writing with a sentence.

Importing this module needs ffcv; `vmoe.data.write` does so only when it is asked to write.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .beton import open_beton, read_stored
from .errors import DataError
from .ffcv import IntField, RGBImageField
from .sidecar import Encoding
from .sources import Pixels, Source, stored_shape

from ffcv.memory_allocator import MemoryAllocator  # isort: skip  # after .ffcv, which imports it faster
from ffcv.writer import DatasetWriter, worker_job_indexed_dataset  # isort: skip

_STANDSTILL = 600.0  # seconds without an image written
_CHUNK = 100  # images a process takes at a time
_SMALL_PAGE, _PAGE = 2**21, 2**23  # bytes: the file is written in pages, which must hold an image each
_COMPARED = 64  # images decoded again from the finished file
_TOLERANCE = 3.0  # mean difference, of 255, between two decoders of the same JPEG data


def write_samples(
    path: Path, source: Source, encoding: Encoding, shapes: NDArray[np.int64], workers: int, progress: bool
) -> None:
    """Write every image of a source that `_check_images` found readable. shapes: (N, 2), as stored.

    Raises `DataError`: an image cannot be read or encoded after all, a process died or none makes progress.
    """
    count = len(source.labels)
    workers = min(workers, -(-count // _CHUNK))
    fields = {
        "image": RGBImageField(
            write_mode=encoding.mode,
            jpeg_quality=encoding.quality,
            compress_probability=encoding.compress_probability,
        ),
        "label": IntField(),
    }
    writer = DatasetWriter(str(path), fields, page_size=_page_size(shapes), num_workers=workers)
    writer.num_samples = count
    writer.prepare()
    processes: list[Process] = []
    try:
        work: Any = multiprocessing.Queue()
        for start in range(0, count, _CHUNK):
            work.put([(index, index) for index in range(start, min(start + _CHUNK, count))])
        for _ in range(workers):
            work.put(None)
        done = multiprocessing.Value(ctypes.c_uint64, 0)
        results: Any = multiprocessing.Queue()
        samples = _Samples(source, encoding.max_resolution)
        allocator = MemoryAllocator(str(path), writer.data_region_start, writer.page_size)
        arguments = (work, writer.metadata_sm, writer.metadata_type, fields, allocator, done, results, samples)
        for number in range(workers):
            process = Process(target=_work, args=(number, *arguments), daemon=True)
            processes.append(process)
            process.start()
        with tqdm(total=count, desc="write images", unit="img", disable=None if progress else True) as bar:
            writer.finalize(_watch(processes, results, lambda: done.value, bar))
    finally:
        for process in processes:
            process.kill()
            process.join()
        writer.metadata_sm.close()
        writer.metadata_sm.unlink()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _page_size(shapes: NDArray[np.int64]) -> int:
    """A power of two that holds every image; small for small sets, whose file has a page a process at least."""
    sizes = shapes.prod(1) * 3
    largest = int(sizes.max()) + 2**16  # JPEG data of a tiny image is larger than its pixels
    return max(_SMALL_PAGE if sizes.sum() < _PAGE else _PAGE, 1 << (largest - 1).bit_length())


class _Samples:
    """The data set that FFCV's writer sees: (pixels as stored, label)."""

    def __init__(self, source: Source, max_resolution: int | None) -> None:
        self._source = source
        self._max_resolution = max_resolution
        self.current = 0

    def __len__(self) -> int:
        return len(self._source.labels)

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        self.current = index
        return shrink(self._source.read(index), self._max_resolution), int(self._source.labels[index])


def shrink(image: Pixels, max_resolution: int | None) -> Pixels:
    """The image with its longer side at most `max_resolution`, by area as FFCV does, but never to nothing."""
    height, width = stored_shape(image.shape[0], image.shape[1], max_resolution)
    if (height, width) == image.shape[:2]:
        return np.ascontiguousarray(image)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _work(number: int, *arguments: Any) -> None:
    """A writing process: FFCV's, whose result is its list of allocations, or here also the sentence of an error."""
    results, samples = arguments[-2:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    np.random.seed(number)  # of which images `proportion` compresses; forked processes would all draw the same
    try:
        worker_job_indexed_dataset(*arguments)
    except Exception as error:
        results.put(f"image {samples.current}: {type(error).__name__}: {error}")


def _watch(processes: list[Process], results: Any, done: Callable[[], int], bar: Any) -> list[Any]:
    """Wait for the processes. Returns their allocations together."""
    allocations, finished, changed = [], 0, time.monotonic()
    while finished < len(processes):
        try:
            result = results.get(timeout=0.1)
        except queue.Empty:
            result = None
        if isinstance(result, str):
            raise DataError(f"writing stopped at {result}")
        if result is not None:
            allocations += result
            finished += 1
        written = done()
        if written > bar.n:
            bar.update(written - bar.n)
            changed = time.monotonic()
        dead = [process.exitcode for process in processes if process.exitcode]
        if dead:
            raise DataError(
                f"a writing process died (exit code {dead[0]}), perhaps for lack of memory; use fewer workers"
            )
        if time.monotonic() - changed > _STANDSTILL:
            raise DataError(f"no image was written for {_STANDSTILL:g} seconds; is the disk still there?")
    return allocations


def compare_samples(path: Path, source: Source, encoding: Encoding, shapes: NDArray[np.int64]) -> None:
    """Compare a finished file with its source: labels and sizes of all images, pixels of a spread of them."""
    file = open_beton(path, "the new file")
    if not np.array_equal(file.labels, source.labels):
        raise DataError(f"the file written from {source.name} holds other labels; is its disk sound?")
    if not np.array_equal(np.stack([file.heights, file.widths], axis=1), shapes):
        raise DataError(f"the file written from {source.name} holds images of other sizes; did they change meanwhile?")
    spread = np.unique(np.linspace(0, len(shapes) - 1, _COMPARED).astype(np.int64))
    for index, stored in zip(spread.tolist(), read_stored(path, spread), strict=True):
        expected = shrink(source.read(index), encoding.max_resolution)
        allowed = _TOLERANCE if stored.compressed else 0.0
        if stored.compressed:
            expected = _recompressed(expected, encoding.quality)
        if np.abs(stored.pixels.astype(np.int64) - expected).mean() > allowed:
            raise DataError(f"image {index} of the file written from {source.name} differs from its source")


def _recompressed(image: Pixels, quality: int) -> Pixels:
    """What JPEG leaves of an image."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
