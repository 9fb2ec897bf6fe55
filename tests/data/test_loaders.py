"""What both loaders promise, held to both; and that they agree on images stored without loss."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import COUNTS, IMAGES, SIZE, Toy

from vmoe.data import Loader, Loaders, Share, open_evaluation, open_loaders

LOADERS = ["ffcv", "folder"]
AUGMENTED = {"crop_scale": (0.2, 1.0), "crop_ratio": (3 / 4, 4 / 3), "flip": 0.5}


def open_toy(toy: Toy, loader: str, share: Share | None = None, seed: int = 0, **changes: Any) -> Loaders:
    return open_loaders(toy.config(loader, **changes), seed=seed, batch_size=8, processes=share)


def everything(loader: Loader, epoch: int = 0, first: int = 0) -> tuple[Tensor, Tensor]:
    batches = list(loader.epoch(epoch, first))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def test_the_loaders_yield_the_same_batches(toy: Toy) -> None:
    ffcv, folder = open_toy(toy, "ffcv"), open_toy(toy, "folder")
    for ours, theirs in zip(ffcv, folder, strict=True):
        assert (ours.samples, ours.batches, ours.classes) == (theirs.samples, theirs.batches, theirs.classes)
        batches, others = list(ours.epoch(1)), list(theirs.epoch(1))
        assert len(batches) == len(others) == ours.batches == len(ours)
        for (images, labels), (same_images, same_labels) in zip(batches, others, strict=True):
            assert torch.equal(images, same_images)
            assert torch.equal(labels, same_labels)


@pytest.mark.parametrize("loader", LOADERS)
def test_types_and_shapes(toy: Toy, loader: str) -> None:
    train, val = open_toy(toy, loader, image_size=16, eval_batch_size=IMAGES - 1, **AUGMENTED)
    assert train.classes == val.classes == tuple(COUNTS)
    assert [train.samples, val.samples] == [IMAGES // 8 * 8, IMAGES]
    for one, counts in ((train, [8] * (IMAGES // 8)), (val, [IMAGES - 1, 1])):
        batches = list(one.epoch(0))
        assert [len(labels) for _, labels in batches] == counts
        for images, labels in batches:
            assert images.shape == (len(labels), 3, 16, 16)
            assert (images.dtype, labels.dtype, labels.ndim) == (torch.uint8, torch.int64, 1)


@pytest.mark.parametrize("loader", LOADERS)
def test_augmentation_is_a_function_of_seed_epoch_and_image(toy: Toy, loader: str) -> None:
    first = open_toy(toy, loader, workers=2, **AUGMENTED).train
    again = open_toy(toy, loader, workers=1, **AUGMENTED).train
    images, labels = everything(first, epoch=2)
    same_images, same_labels = everything(again, epoch=2)  # with other workers, and epochs 0 and 1 never read
    assert torch.equal(images, same_images)
    assert torch.equal(labels, same_labels)
    rest, _ = everything(first, epoch=2, first=2)
    assert torch.equal(images[16:], rest)
    assert not torch.equal(images, everything(first, epoch=3)[0])
    assert not torch.equal(images, everything(open_toy(toy, loader, seed=1, **AUGMENTED).train, epoch=2)[0])


@pytest.mark.parametrize("loader", LOADERS)
def test_evaluation_counts_every_image_once_over_processes(toy: Toy, loader: str) -> None:
    alone, labels = everything(open_evaluation(toy.config(loader)))
    world = 4
    shares = [
        everything(open_evaluation(toy.config(loader), processes=Share(rank, world, world))) for rank in range(world)
    ]
    for rank, (images, part) in enumerate(shares):
        assert torch.equal(images, alone[rank::world])
        assert torch.equal(part, labels[rank::world])
    assert sum(len(part) for _, part in shares) == IMAGES


@pytest.mark.parametrize("loader", LOADERS)
def test_a_process_without_images_gets_no_batches(toy: Toy, loader: str) -> None:
    empty = open_evaluation(toy.config(loader), processes=Share(IMAGES, IMAGES + 1))
    assert (empty.samples, empty.batches, list(empty.epoch(0))) == (IMAGES, 0, [])


@pytest.mark.parametrize("loader", LOADERS)
def test_processes_share_a_training_epoch(toy: Toy, loader: str) -> None:
    parts = [everything(open_toy(toy, loader, Share(rank, 2)).train, epoch=1)[0] for rank in range(2)]
    assert [len(part) for part in parts] == [IMAGES // 16 * 8] * 2
    pictures = {image.numpy().tobytes() for part in parts for image in part}
    assert len(pictures) == IMAGES // 16 * 16


@pytest.mark.parametrize("loader", LOADERS)
def test_batches_stay_as_they_were(toy: Toy, loader: str) -> None:
    kept, copies = [], []
    for images, _ in open_toy(toy, loader).train.epoch(0):
        kept.append(images)
        copies.append(images.clone())
    assert all(map(torch.equal, kept, copies))


@pytest.mark.parametrize("loader", LOADERS)
def test_an_epoch_can_be_left_and_begun_again(toy: Toy, loader: str) -> None:
    train = open_toy(toy, loader, batch_size=8).train
    whole, _ = everything(train, epoch=1)
    before = set(threading.enumerate())
    for number in range(3):
        for images, _ in train.epoch(number):
            assert images.shape == (8, 3, SIZE, SIZE)
            break
    with pytest.raises(ZeroDivisionError):
        [1 / 0 for _ in train.epoch(1)]
    if loader == "ffcv":
        assert set(threading.enumerate()) == before
    assert torch.equal(everything(train, epoch=1)[0], whole)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("count", [5, IMAGES, IMAGES + 1])
def test_a_sample_is_evenly_spaced_and_the_same_on_every_process(toy: Toy, loader: str, count: int) -> None:
    """As evaluation sees the images, also where it is taken from a training loader."""
    train, val = open_toy(toy, loader, crop_scale=(0.2, 1.0))
    all_images, all_labels = everything(val)
    chosen = [number * IMAGES // min(count, IMAGES) for number in range(min(count, IMAGES))]
    shares = [open_toy(toy, loader, Share(rank, 2)).val for rank in range(2)]
    for one in (train, val, *shares):
        sample = one.sample(count)
        images, labels = everything(sample)
        assert sample.units == len(chosen)
        assert torch.equal(images, all_images[chosen])
        assert torch.equal(labels, all_labels[chosen])
