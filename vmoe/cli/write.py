"""`vmoe write`: an image folder, or the embedded digits, as .beton files for FFCV."""

from __future__ import annotations

import argparse
from pathlib import Path

from vmoe.config import DIGITS
from vmoe.data import digits, write_beton


def run(options: argparse.Namespace) -> None:
    if options.source == DIGITS:
        for path in digits.materialise(Path(options.target), "ffcv"):
            print(path)
        return
    written = write_beton(
        options.source,
        options.target,
        mode=options.mode,
        max_resolution=options.max_resolution,
        quality=options.quality,
        workers=options.workers,
        overwrite=options.overwrite,
    )
    if written.ignored:
        print(f"{written.ignored:,} files in class folders are no images and were left out")
    sidecar = written.sidecar
    print(f"{written.path}: {sidecar.samples:,} images of {len(sidecar.classes)} classes, {sidecar.bytes:,} bytes")
