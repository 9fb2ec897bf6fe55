from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.datasets import ImageFolder
from toy import Toy

from vmoe.data import DataError, open_evaluation
from vmoe.data.folder import _Batches
from vmoe.data.images import read_image, scan_classes


def test_classes_and_files_are_image_folders(toy: Toy, tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/10.png", "b/sub/1.webp", "B/x.tiff", "a b/é.bmp", "a b/notes.txt", ".hidden/1.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for root in (toy.folder, tmp_path):
        ours, theirs = scan_classes(root, "data.train"), ImageFolder(root)
        assert list(ours.classes) == theirs.classes
        assert list(zip(ours.files, ours.labels.tolist(), strict=True)) == theirs.samples
    assert ours.ignored == 1


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "LA", "1", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    file = tmp_path / f"image.{suffix}"
    Image.new("RGB", (5, 7), (204, 204, 204)).convert(mode).save(file)
    image = read_image(str(file))
    assert (image.mode, image.size) == ("RGB", (5, 7))
    if mode != "1":
        assert np.abs(np.array(image).astype(int) - 204).max() <= 3


def _sixteen_bits(file: Path) -> None:
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(file)


def _truncated(file: Path) -> None:
    Image.effect_noise((64, 64), 50).save(file)
    file.write_bytes(file.read_bytes()[:800])


def _bomb(file: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(file)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.write_text("no image"), "cannot be read as an image"),
        (lambda file: file.write_bytes(b""), "cannot be read as an image"),
        (_truncated, "truncated"),
        (_sixteen_bits, "8 bits"),
        (_bomb, "MAX_IMAGE_PIXELS"),
    ],
)
def test_a_bad_image_is_named(toy: Toy, tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    shutil.copytree(toy.folder, tmp_path / "images")
    file = tmp_path / "images" / "dog" / "05.png"
    make(file)
    loader = open_evaluation(toy.config("folder", val=str(tmp_path / "images")))
    with pytest.raises(DataError, match=rf"{file}.*{reason}") as caught:
        list(loader.epoch(0))
    assert "Traceback" not in str(caught.value)


def test_no_batch_within_the_time_limit(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = open_evaluation(toy.config("folder", timeout=1.0, workers=1))
    monkeypatch.setattr(_Batches, "__getitem__", lambda *_: __import__("time").sleep(60))
    with pytest.raises(TimeoutError, match=rf"{toy.folder}.* 1 seconds \(data\.timeout\)"):
        next(loader.epoch(0))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_resizes_as_it_is_asked_to(toy: Toy, interpolation: str) -> None:
    """By timm's transform of that name, which for these images is not the other one's."""
    loader = open_evaluation(toy.config("folder", image_size=8, eval_interpolation=interpolation, workers=1))
    images, _ = next(iter(loader.epoch(0)))
    first = Image.open(toy.folder / loader.names()[0]).convert("RGB")
    made = {
        name: torch.as_tensor(create_transform(8, interpolation=name, crop_pct=1.0, use_prefetcher=True)(first))
        for name in ("bicubic", "bilinear")
    }
    assert images[0].equal(made[interpolation])
    assert not made["bicubic"].equal(made["bilinear"])
