"""A small data set for both loaders: the same pixels as class folders and as a .beton file, stored without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from vmoe.config.schema import DataConfig
from vmoe.data import write_beton

SIZE = 12
COUNTS = {"cat": 9, "dog": 17, "eel": 11}  # 37 images, a prime: no batch or number of processes divides it
IMAGES = sum(COUNTS.values())


class Toy(NamedTuple):
    folder: Path
    beton: Path

    def config(self, loader: str, **changes: Any) -> DataConfig:
        """No augmentation, images at the size they are stored in, two workers, unless changed."""
        path = str(self.folder if loader == "folder" else self.beton)
        values = {
            "train": path,
            "val": path,
            "loader": loader,
            "image_size": SIZE,
            "batch_size": 8,
            "eval_batch_size": 5,
            "workers": 2,
            "crop_scale": (1.0, 1.0),
            "crop_ratio": (1.0, 1.0),
            "flip": 0.0,
            "eval_crop": 1.0,
            "timeout": 60.0,
        }
        return DataConfig(**(values | changes))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy")
    generator = np.random.default_rng(0)
    for name, count in COUNTS.items():
        folder = root / "images" / name
        folder.mkdir(parents=True)
        for index in range(count):
            Image.fromarray(generator.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(folder / f"{index:02}.png")
    write_beton(root / "images", root / "toy.beton", mode="raw", workers=2, progress=False)
    return Toy(root / "images", root / "toy.beton")
