"""Real photographs of many sizes, some grey: both loaders, with their different resampling, show the same pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import Toy

from vmoe.data import open_loaders, verify_beton, write_beton

CLASSES = 24


@pytest.fixture(scope="module")
def photographs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("photographs")
    (root / "images").mkdir()
    for folder in sorted((shared_data / "imagenet_sample" / "train").iterdir())[:CLASSES]:
        (root / "images" / folder.name).symlink_to(folder)
    write_beton(root / "images", root / "x.beton", workers=2, progress=False)
    return Toy(root / "images", root / "x.beton")


def test_both_loaders_show_the_same_pictures(photographs: Toy) -> None:
    assert verify_beton(photographs.beton).samples >= CLASSES
    shapes = {"image_size": 64, "eval_crop": 0.875, "crop_scale": (0.08, 1.0), "flip": 0.5, "eval_batch_size": 7}
    ffcv, folder = (
        open_loaders(photographs.config(kind, **shapes), seed=0, batch_size=8) for kind in ("ffcv", "folder")
    )
    for (ours, labels), (theirs, same) in zip(ffcv.val.epoch(0), folder.val.epoch(0), strict=True):
        assert torch.equal(labels, same)
        difference = distance(ours, theirs)
        assert difference < 0.3 * ours.float().std()  # JPEG once more, and area against bicubic
        for shift in ((2, 0), (-2, 0), (0, 2), (0, -2)):
            assert difference < 0.7 * distance(ours, theirs.roll(shift, (2, 3)))
    for (_, labels), (_, same) in zip(ffcv.train.epoch(1), folder.train.epoch(1), strict=True):
        assert torch.equal(labels, same)


def distance(images: Tensor, others: Tensor) -> Tensor:
    return (images.float() - others.float()).abs().mean()
