"""Progressive resolution: which size an epoch has, and that both loaders give it."""

from __future__ import annotations

import pytest
import torch
from toy import Toy

from vmoe.config.schema import ProgressiveConfig
from vmoe.data import open_loaders
from vmoe.data.sizes import Sizes


def test_images_grow_in_a_straight_line_between_begin_and_end() -> None:
    sizes = Sizes(224, ProgressiveConfig(start=128, begin=0.25, end=0.75, multiple=16), epochs=16)
    each = [sizes.at(epoch) for epoch in range(16)]
    assert each[:5] == [128] * 5
    assert each[12:] == [224] * 4
    # by hand: 128 + 96 * (epoch - 4) / 8, 140, 152, 164, 176, 188, 200, 212, to the nearest even multiple
    # of 16 where it lies between two
    assert each[5:12] == [144, 160, 160, 176, 192, 192, 208]
    assert tuple(sorted(set(sizes.by_epoch))) == (128, 144, 160, 176, 192, 208, 224)


@pytest.mark.parametrize("end", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_the_last_epochs_are_on_whole_images(end: float, epochs: int) -> None:
    growth = ProgressiveConfig(start=32, begin=0.0, end=end, multiple=32)
    each = [Sizes(96, growth, epochs).at(epoch) for epoch in range(epochs)]
    assert each == sorted(each)
    assert all(side in (32, 64, 96) for side in each)
    assert all(side == 96 for epoch, side in enumerate(each) if epoch >= end * epochs)
    assert Sizes(96).by_epoch == (96,)


@pytest.mark.parametrize("loader", ["ffcv", "folder"])
def test_the_loaders_give_each_epoch_its_size(toy: Toy, loader: str) -> None:
    growth = ProgressiveConfig(start=4, begin=0.0, end=0.5, multiple=4)
    data = toy.config(loader, progressive=growth)
    train, val = open_loaders(data, seed=0, batch_size=8, epochs=4)
    shapes = [next(iter(train.epoch(epoch)))[0].shape for epoch in range(4)]
    assert shapes == [(8, 3, side, side) for side in (4, 8, 12, 12)]
    assert next(iter(val.epoch(0)))[0].shape[2:] == (12, 12)
    assert next(iter(train.sample(3).epoch(0)))[0].shape[2:] == (12, 12)
    (small, labels), (again, same) = next(iter(train.epoch(0))), next(iter(train.epoch(0)))
    assert torch.equal(small, again)
    assert torch.equal(labels, same)


@pytest.mark.parametrize("loader", ["ffcv", "folder"])
def test_copies_of_an_image_are_cropped_each_in_its_own_way(toy: Toy, loader: str) -> None:
    data = toy.config(loader, repeats=4, crop_scale=(0.2, 1.0), crop_ratio=(0.75, 4 / 3), flip=0.5)
    images, labels = next(iter(open_loaders(data, seed=0, batch_size=8).train.epoch(0)))
    assert len(set(labels[:4].tolist())) == len(set(labels[4:].tolist())) == 1
    assert len({image.numpy().tobytes() for image in images}) > 4
