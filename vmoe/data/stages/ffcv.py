"""The parts of the FFCV loader's work, by the functions that it compiles into one. Importing this module needs ffcv."""

from __future__ import annotations

import numpy as np

from ..ffcv import IMAGE_MODES, FFCVLoader, imdecode, resize_crop
from ..order import Indices
from .page_cache import resident_share
from .parts import CROP, DECODE, READ, Part, Sample, Stages, first_batch, fresh_indices


def ffcv_stages(loader: FFCVLoader, images: int) -> Stages:
    """See `stages_of`. Images are written into their batch as they are resized, so nothing is collated."""
    reader, manager, order, size = (
        loader.pipeline.reader,
        loader.pipeline.memory_manager,
        loader._order,
        loader._data.image_size,
    )
    resident = resident_share([loader.file.path])
    column = reader.metadata[f"f{reader.field_names.index('image')}"]
    data = np.memmap(loader.file.path, np.uint8, mode="r")

    def stored(indices: Indices) -> list[np.ndarray]:
        """Copies of the stored bytes."""
        addresses = column["data_ptr"][indices]
        sizes = manager.sizes[np.searchsorted(manager.ptrs, addresses)]
        return [np.array(data[start : start + size]) for start, size in zip(addresses, sizes, strict=True)]

    indices, keys = first_batch(order, images)
    entries, crops, chosen = column[indices], loader.crops(indices, keys), stored(indices)
    pixels = [np.empty((entry["height"], entry["width"], 3), np.uint8) for entry in entries]
    compressed = [number for number, entry in enumerate(entries) if entry["mode"] == IMAGE_MODES["jpg"]]
    for number in set(range(len(entries))) - set(compressed):
        pixels[number][:] = chosen[number].reshape(pixels[number].shape)
    batch = np.empty((len(indices), size, size, 3), np.uint8)
    fresh = fresh_indices(order, len(indices))

    def decode() -> None:
        for number in compressed:
            height, width, _ = pixels[number].shape
            imdecode(chosen[number], pixels[number], height, width, height, width, 0, 0, 1, 1, False, False)

    def crop() -> None:
        for image, (top, left, height, width, flipped), into in zip(pixels, crops.tolist(), batch, strict=True):
            resize_crop(image, top, top + height, left, left + width, into)
            if flipped:
                into[:] = into[:, ::-1].copy()

    decode()
    parts = [Part(READ, len(indices), lambda: stored(next(fresh)))]
    if compressed:
        parts.append(Part(DECODE, len(compressed), decode))
    parts.append(Part(CROP, len(indices), crop))
    sample = Sample(
        bytes=float(np.mean([len(one) for one in chosen])),
        side=float(np.minimum(entries["height"], entries["width"]).mean()),
        compressed=len(compressed) / len(indices),
        resident=resident,
    )
    return Stages(parts, sample)
