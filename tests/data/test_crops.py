from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from vmoe.data import Share
from vmoe.data.crops import central_crops, random_crops
from vmoe.data.order import TrainingOrder

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def keys(count: int) -> np.ndarray:
    return TrainingOrder(count, 1, Share(), seed=0).keys(0)


def sizes(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    heights, widths = generator.integers(1, 300, (2, count))
    heights[:3], widths[:3] = (1, 1, 200), (1, 200, 1)
    return heights, widths


def test_random_crops_lie_inside_their_image() -> None:
    heights, widths = sizes(5000)
    top, left, height, width, flipped = random_crops(heights, widths, keys(5000), scale=SCALE, ratio=RATIO, flip=0.5).T
    assert min(top.min(), left.min()) == 0
    assert min(height.min(), width.min()) >= 1
    assert (top + height <= heights).all()
    assert (left + width <= widths).all()
    assert set(flipped) == {0, 1}


def test_central_crops_lie_in_the_middle() -> None:
    heights, widths = sizes(5000)
    top, left, height, width, flipped = central_crops(heights, widths, share=0.875).T
    assert (height == width).all()
    assert (np.abs(height - 0.875 * np.minimum(heights, widths)) <= 0.5).all()
    for start, side, whole in ((top, height, heights), (left, width, widths)):
        assert np.isin(whole - (2 * start + side), (0, 1)).all()
    assert not flipped.any()


@pytest.mark.parametrize("shape", [(300, 400), (60, 400), (400, 50)])
def test_random_crops_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    count = 4000
    heights, widths = np.full(count, shape[0]), np.full(count, shape[1])
    ours = random_crops(heights, widths, keys(count), scale=SCALE, ratio=RATIO, flip=0.5)[:, :4]
    torch.manual_seed(0)
    image = torch.empty(1, *shape)
    theirs = np.array([RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(count)])
    error = np.sqrt((ours.var(0) + theirs.var(0)) / count)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 5 * error + 0.5).all()  # 0.5: rounding of a fixed fallback
    spread, their_spread = ours.std(0), theirs.std(0)
    assert np.allclose(spread, their_spread, rtol=0.1, atol=0.5)


def test_the_whole_square_is_cut_when_nothing_else_is_allowed() -> None:
    side = np.array([1, 8, 33])
    crops = random_crops(side, side, keys(3), scale=(1, 1), ratio=(1, 1), flip=0.0)
    assert crops.tolist() == [[0, 0, size, size, 0] for size in side]


@pytest.mark.parametrize("flip", [0.0, 0.3, 1.0])
def test_the_share_of_flips(flip: float) -> None:
    side = np.full(10_000, 10)
    share = random_crops(side, side, keys(10_000), scale=SCALE, ratio=RATIO, flip=flip)[:, 4].mean()
    assert abs(share - flip) <= 5 * np.sqrt(flip * (1 - flip) / 10_000)
