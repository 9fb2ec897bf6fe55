"""The parts of the folder loader's work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vmoe.config.schema import ImageDataConfig
from vmoe.untrusted import open_file

from ..folder import FolderLoader, transform_of
from ..images import read_image
from .page_cache import resident_share
from .parts import COLLATE, CROP, DECODE, READ, Part, Sample, Stages, first_batch, fresh_indices


def folder_stages(loader: FolderLoader, data: ImageDataConfig, images: int) -> Stages:
    """See `stages_of`. Decoding opens its files, which are in the page cache by then."""
    files, order, transform = loader.source.files, loader._order, transform_of(data, data.image_size, training=True)
    chosen = [files[index] for index in first_batch(order, images)[0].tolist()]
    resident = resident_share([Path(file) for file in chosen])
    decoded = [read_image(file) for file in chosen]
    samples = [transform(image) for image in decoded]
    fresh = fresh_indices(order, len(chosen))

    def read() -> None:
        for index in next(fresh).tolist():
            with open_file(files[index]) as file:
                file.read()

    def decode() -> None:
        for file in chosen:
            read_image(file)

    def crop() -> None:
        for image in decoded:
            transform(image)

    sample = Sample(
        bytes=float(np.mean([Path(file).stat().st_size for file in chosen])),
        side=float(np.mean([min(image.size) for image in decoded])),
        compressed=1.0,
        resident=resident,
    )
    works = {READ: read, DECODE: decode, CROP: crop, COLLATE: lambda: torch.stack(samples)}
    return Stages([Part(name, len(chosen), work) for name, work in works.items()], sample)
