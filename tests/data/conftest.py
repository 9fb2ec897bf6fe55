"""A small data set for both loaders: the same pixels as class folders and as a .beton file, stored without loss."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from toy import COUNTS, SIZE, Toy

from vmoe.data import write_beton


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
