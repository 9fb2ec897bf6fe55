"""The parts of both loaders' work on a small data set, and a loader without ends of epochs."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import IMAGES, SIZE, Toy

from vmoe.data import Share, open_loaders, write_beton
from vmoe.data.order import TrainingOrder, batches_of
from vmoe.data.stages import resident_share
from vmoe.data.stages.parts import COLLATE, CROP, DECODE, READ, first_batch, fresh_indices, stages_of
from vmoe.data.stages.steady import Chained, steady


def test_reading_takes_other_images_until_there_are_none() -> None:
    order = TrainingOrder(IMAGES, 8, Share(), seed=0)  # 4 batches: 32 images
    fresh = fresh_indices(order, 5)
    epochs = [list(chain.from_iterable(next(fresh) for _ in range(7))) for _ in range(2)]  # 6 × 5 + 2
    assert epochs[0] == order.indices(0).tolist()
    assert epochs[1] == order.indices(1).tolist()
    assert len(first_batch(order, 5)[0]) == len(first_batch(order, 5)[1]) == 5
    assert len(first_batch(order, 100)[0]) == 8


def test_chained_epochs_are_the_epochs_one_after_another() -> None:
    order = TrainingOrder(IMAGES, 8, Share(1, 2), seed=3)
    chained = Chained(order, 3)
    assert chained.batches == 3 * order.batches
    assert chained.samples == 3 * order.samples
    expected = chain.from_iterable(batches_of(order, epoch) for epoch in (3, 4, 5))
    for (indices, keys), (other, their_keys) in zip(batches_of(chained, 1), expected, strict=True):
        assert np.array_equal(indices, other)
        assert np.array_equal(keys, their_keys)


def test_a_steady_loader_gives_what_the_loader_gives(toy: Toy) -> None:
    loader = open_loaders(toy.config("folder", workers=1), seed=0, batch_size=8).train
    long = steady(loader, workers=1, batches=5)
    assert len(long) == 8  # two epochs of four batches
    expected = chain(loader.epoch(0), loader.epoch(1))
    for (images, labels), (others, their_labels) in zip(long.epoch(0), expected, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, their_labels)


def test_the_parts_of_the_folder_loader(toy: Toy) -> None:
    data = toy.config("folder")
    parts, sample = stages_of(open_loaders(data, seed=0, batch_size=8).train, data, 64)
    assert [part.name for part in parts] == [READ, DECODE, CROP, COLLATE]
    assert {part.images for part in parts} == {8}  # a batch holds no more
    for part in parts:
        part.work()
    files = [path.stat().st_size for path in toy.folder.rglob("*.png")]
    assert min(files) <= sample.bytes <= max(files)
    assert sample.side == SIZE
    assert sample.compressed == 1


@pytest.mark.parametrize(("mode", "names"), [("raw", [READ, CROP]), ("jpg", [READ, DECODE, CROP])])
def test_the_parts_of_the_ffcv_loader(toy: Toy, tmp_path: Path, mode: str, names: list[str]) -> None:
    beton = toy.beton
    if mode == "jpg":
        beton = tmp_path / "toy.beton"
        write_beton(toy.folder, beton, mode=mode, workers=1, progress=False)
    data = toy.config("ffcv", train=str(beton), workers=1, crop_scale=(0.2, 1.0), flip=0.5)
    parts, sample = stages_of(open_loaders(data, seed=0, batch_size=8).train, data, 6)
    assert [part.name for part in parts] == names
    assert {part.images for part in parts} == {6}
    for part in parts:
        part.work()
    assert sample.side == SIZE
    assert sample.compressed == (mode == "jpg")
    if mode == "raw":
        assert sample.bytes == 3 * SIZE**2


def test_what_was_just_written_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(5_000_000))
    assert resident_share([path]) == 1
    assert resident_share([path, path]) == 1
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # a request, which some file systems ignore
    assert 0 <= resident_share([path]) <= 1


def test_what_is_not_there_has_no_share(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert resident_share([tmp_path / "empty", tmp_path / "missing"]) is None
    assert resident_share([]) is None
