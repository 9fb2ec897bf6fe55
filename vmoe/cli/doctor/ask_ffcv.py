"""Does FFCV work? A JPEG written, opened by our loader and read back; asked in a process of its own, which may hang."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vmoe.config import ImageDataConfig
from vmoe.data import ArraySource, open_evaluation, write_beton

SIDE = 32  # of the sample; the stored image has twice that
TOLERANCE = 4.0  # mean difference, of 255, that JPEG compression may make to smooth colours
LIBRARIES = re.compile(r"/(lib(?:turbojpeg|opencv_core|opencv_imgproc)[^/\s]*)$", re.MULTILINE)


class Decoded(NamedTuple):
    """seconds: from writing to the first batch, compilation included. difference: mean, of 255, to what was written.
    libraries: JPEG's and OpenCV's, as they were loaded.
    """

    seconds: float
    difference: float
    libraries: tuple[str, ...]


def ask_ffcv(timeout: float) -> Decoded:
    """Write an image and read it as a run would. Raises whatever goes wrong; `ImportError` where FFCV is not there."""
    import vmoe.data.beton  # noqa: F401  # which imports it, and says more plainly than what needs it why it cannot

    start = time.perf_counter()
    rows, columns = np.mgrid[0 : 2 * SIDE, 0 : 2 * SIDE]
    image = np.stack([2 * rows, 2 * columns, rows + columns], axis=-1).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.beton"
        source = ArraySource("colours", image[None], np.zeros(1, np.int64), ("colours",))
        write_beton(source, path, workers=1, progress=False)
        data = ImageDataConfig(
            train=str(path),
            val=str(path),
            loader="ffcv",
            image_size=SIDE,
            eval_crop=1.0,
            workers=1,
            timeout=timeout,
        )
        images, _ = next(open_evaluation(data).epoch(0))
    expected = image.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3)).transpose(2, 0, 1)  # resized by area
    difference = float(np.abs(images[0].numpy() - expected).mean())
    maps = Path("/proc/self/maps")
    libraries = tuple(sorted(set(LIBRARIES.findall(maps.read_text())))) if maps.exists() else ()
    return Decoded(time.perf_counter() - start, difference, libraries)
