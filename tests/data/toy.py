"""A small data set, and the config that reads it through either loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from vmoe.config.schema import ImageDataConfig

SIZE = 12
COUNTS = {"cat": 9, "dog": 17, "eel": 11}  # 37 images, a prime: no batch or number of processes divides it
IMAGES = sum(COUNTS.values())


class Toy(NamedTuple):
    folder: Path
    beton: Path

    def config(self, loader: str, **changes: Any) -> ImageDataConfig:
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
        return ImageDataConfig(**(values | changes))
