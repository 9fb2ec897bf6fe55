from __future__ import annotations

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from vmoe.config.schema import ImageDataConfig
from vmoe.data import digits, open_evaluation, open_loaders, verify_beton

IMAGES, TEST = 1797, 360


def test_pixels_are_scikit_learns() -> None:
    images, labels = digits.load()
    found = load_digits()
    assert images.shape == (IMAGES, 8, 8, 3)
    assert (images == images[..., :1]).all()
    assert np.array_equal(np.rint(images[..., 0] / 255 * 16), found.images)
    assert np.array_equal(labels, found.target)
    assert images.max() == 255


def test_the_split_is_the_published_one() -> None:
    """A digest on purpose: results of different versions compare only while the split stays what it is."""
    train, test = digits.split(digits.load()[1])
    assert sorted([*train, *test]) == list(range(IMAGES))
    digest = hashlib.sha256(np.sort(test).astype("<i8").tobytes()).hexdigest()
    assert digest == "d971ab24951548c14ce285629ba8e8f79ee0f2e4f37ca8e360ffc14c4d5a40e3"


def test_the_split_is_stratified() -> None:
    labels = digits.load()[1]
    train, test = digits.split(labels)
    assert (len(train), len(test)) == (IMAGES - TEST, TEST)
    assert np.abs(np.bincount(labels[test]) - np.bincount(labels) * TEST / IMAGES).max() < 1
    for part in (train, test):  # class by class, in the order of the folders
        assert np.array_equal(np.lexsort((part, labels[part])), np.arange(len(part)))


def test_both_loaders_read_the_same_digits(tmp_path: Path) -> None:
    def config(loader: str) -> ImageDataConfig:
        small = {"image_size": 8, "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0, "eval_crop": 1.0}
        return ImageDataConfig(train="digits", val="digits", loader=loader, cache=tmp_path, workers=1, **small)

    both = [open_loaders(config(loader), seed=0, batch_size=479) for loader in ("ffcv", "folder")]
    images, labels = digits.load()
    test = digits.split(labels).test
    for loaders in both:
        assert loaders.train.classes == loaders.val.classes == tuple("0123456789")
        assert (loaders.train.samples, loaders.val.samples) == (1437, TEST)
        found = torch.cat([batch for batch, _ in loaders.val.epoch(0)])
        assert torch.equal(found, torch.from_numpy(images[test]).permute(0, 3, 1, 2))
        assert torch.cat([batch for _, batch in loaders.val.epoch(0)]).tolist() == labels[test].tolist()
    for (ours, same), (theirs, others) in zip(*(loaders.train.epoch(4) for loaders in both), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(same, others)
    assert open_evaluation(config("ffcv")).samples == TEST


@pytest.mark.parametrize("loader", ["ffcv", "folder"])
def test_written_once_and_mended(tmp_path: Path, loader: str) -> None:
    train, val = digits.materialise(tmp_path, loader)
    stamps = [path.stat().st_mtime_ns for path in (train, val)]
    assert digits.materialise(tmp_path, loader) == (train, val)
    assert [path.stat().st_mtime_ns for path in (train, val)] == stamps
    if loader == "ffcv":
        content = train.read_bytes()
        train.write_bytes(content[: len(content) // 2])
        digits.materialise(tmp_path, loader)
        assert train.read_bytes() == content
        assert verify_beton(train).samples == 1437


@pytest.mark.parametrize("loader", ["ffcv", "folder"])
def test_processes_that_ask_at_once_get_the_same(tmp_path: Path, loader: str) -> None:
    with ProcessPoolExecutor(4) as pool:
        paths = list(pool.map(digits.materialise, [tmp_path] * 4, [loader] * 4))
    assert len(set(paths)) == 1
    assert all(path.exists() for path in paths[0])
    suffix = ".beton" if loader == "ffcv" else ""
    written = {f"train{suffix}", f"val{suffix}", ".lock"}
    assert set(os.listdir(tmp_path)) - written <= {"train.beton.json", "val.beton.json"}
