from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import COUNTS, IMAGES, SIZE, Toy

from vmoe.data import ArraySource, DataError, verify_beton, write_beton
from vmoe.data import beton_writer as writer
from vmoe.data.beton import open_beton, read_stored
from vmoe.data.images import scan_classes
from vmoe.data.names import names_path
from vmoe.data.sidecar import Encoding, read_sidecar, sidecar_path
from vmoe.data.sources import FolderSource, stored_shape


def test_stored_images_are_the_sources(toy: Toy) -> None:
    folders = scan_classes(toy.folder, "data.train")
    file = open_beton(toy.beton, "data.train")
    assert file.classes == folders.classes == tuple(COUNTS)
    assert np.array_equal(file.labels, folders.labels)
    for path, stored in zip(folders.files, read_stored(toy.beton, np.arange(IMAGES)), strict=True):
        assert not stored.compressed
        assert np.array_equal(stored.pixels, np.array(Image.open(path)))
    sidecar = verify_beton(toy.beton)
    assert (sidecar.samples, sidecar.classes, sidecar.source) == (IMAGES, tuple(COUNTS), str(toy.folder))
    assert sidecar.image == Encoding(mode="raw")
    assert sidecar.bytes == toy.beton.stat().st_size


@pytest.mark.parametrize("mode", ["jpg", "proportion", "raw"])
def test_modes_and_shrinking(tmp_path: Path, mode: str) -> None:
    gradient = np.linspace(0, 255, 120).astype(np.uint8)
    shapes = [(60, 120), (120, 60), (1, 120), (30, 30), (5, 3)] * 40
    images = [np.broadcast_to(gradient[None, : shape[1], None], (*shape, 3)) for shape in shapes]
    source = ArraySource("gradients", images, np.arange(200) % 5, tuple("abcde"))
    written = write_beton(source, tmp_path / "x.beton", mode=mode, max_resolution=40, workers=2, progress=False)
    stored = read_stored(written.path, np.arange(200))
    assert {image.pixels.shape[:2] for image in stored} == {(20, 40), (40, 20), (1, 40), (30, 30), (5, 3)}
    share = sum(image.compressed for image in stored) / 200
    assert {"jpg": share == 1, "raw": share == 0, "proportion": 0.3 < share < 0.7}[mode]


@pytest.mark.parametrize("longest", [None, 1, 7, 500])
def test_shapes_keep_their_ratio_and_never_vanish(longest: int | None) -> None:
    for shape in [(1, 1), (1, 2000), (640, 480), (333, 1000)]:
        height, width = stored_shape(*shape, longest)
        assert min(height, width) >= 1
        assert max(height, width) == min(max(shape), longest or max(shape))
        if min(height, width) > 10:
            assert width / height == pytest.approx(shape[1] / shape[0], rel=0.1)


def test_bad_images_are_all_named_before_anything_is_written(toy: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(toy.folder, tmp_path / "images")
    (folder / "cat" / "03.png").write_bytes((folder / "cat" / "03.png").read_bytes()[:100])
    (folder / "eel" / "07.jpg").write_text("not an image")
    with pytest.raises(DataError, match="2 of 38 images") as caught:
        write_beton(folder, tmp_path / "x.beton", workers=2, progress=False)
    assert "cat/03.png" in str(caught.value)
    assert "eel/07.jpg" in str(caught.value)
    assert os.listdir(tmp_path) == ["images"]


def test_at_most_twenty_bad_images_are_listed(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    for index in range(30):
        (tmp_path / "images" / "a" / f"{index}.png").touch()
    with pytest.raises(DataError, match=r"(?s)30 of 30 images.*and 10 more") as caught:
        write_beton(tmp_path / "images", tmp_path / "x.beton", workers=1, progress=False)
    assert str(caught.value).count(".png") <= 2 * 20  # PIL repeats the name


def test_other_files_are_ignored_and_counted(toy: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(toy.folder, tmp_path / "images")
    (folder / "cat" / "notes.txt").write_text("a note")
    (folder / "README").write_text("beside the classes")
    written = write_beton(folder, tmp_path / "x.beton", workers=1, progress=False)
    assert (written.ignored, written.sidecar.samples) == (1, IMAGES)


@pytest.mark.parametrize("fault", ["raise", "kill"])
def test_a_failing_writing_process_ends_the_writing(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    real = writer.shrink

    def planted(image: np.ndarray, longest: int | None) -> np.ndarray:  # called in writing processes only
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise MemoryError("planted")

    monkeypatch.setattr(writer, "shrink", planted)
    expected = "exit code -9" if fault == "kill" else "image 0: MemoryError: planted"
    with pytest.raises(DataError, match=expected):
        write_beton(toy.folder, tmp_path / "x.beton", workers=2, progress=False)
    assert os.listdir(tmp_path) == []
    assert not multiprocessing.active_children()
    monkeypatch.setattr(writer, "shrink", real)
    write_beton(toy.folder, tmp_path / "x.beton", workers=2, progress=False)


def test_a_standstill_ends_the_writing(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "shrink", lambda *_: __import__("time").sleep(60))
    monkeypatch.setattr(writer, "_STANDSTILL", 0.5)
    with pytest.raises(DataError, match=r"no image was written for 0\.5 seconds"):
        write_beton(toy.folder, tmp_path / "x.beton", workers=1, progress=False)
    assert os.listdir(tmp_path) == []


def test_a_killed_checking_process_ends_the_writing(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderSource, "read", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match="was killed"):
        write_beton(toy.folder, tmp_path / "x.beton", workers=2, progress=False)
    assert os.listdir(tmp_path) == []


def test_a_file_that_differs_from_its_source_gets_no_name(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = writer.write_samples

    def other_pixels(path: Path, source: FolderSource, *arguments: object) -> None:
        images = [255 - source.read(index) for index in range(IMAGES)]
        real(path, ArraySource("other", images, source.labels, source.classes), *arguments)

    monkeypatch.setattr(writer, "write_samples", other_pixels)
    for mode in ("raw", "jpg"):
        with pytest.raises(DataError, match=r"image 0 .* differs"):
            write_beton(toy.folder, tmp_path / "x.beton", mode=mode, workers=1, progress=False)
    assert os.listdir(tmp_path) == []


def test_nothing_is_overwritten_unasked(toy: Toy, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x.beton"
    write_beton(toy.folder, target, mode="raw", workers=1, progress=False)
    before = target.read_bytes()
    with pytest.raises(DataError, match="exists"):
        write_beton(toy.folder, target, mode="jpg", workers=1, progress=False)
    assert target.read_bytes() == before
    write_beton(toy.folder, target, mode="jpg", workers=1, progress=False, overwrite=True)
    assert verify_beton(target).image.mode == "jpg"
    assert sorted(os.listdir(target.parent)) == ["x.beton", "x.beton.files.json", "x.beton.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "gif"}, "mode is 'gif'"),
        ({"quality": 0}, "quality is 0"),
        ({"max_resolution": 0}, "max_resolution is 0"),
        ({"compress_probability": 2.0}, "compress_probability is 2"),
    ],
)
def test_impossible_encodings(toy: Toy, tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_beton(toy.folder, tmp_path / "x.beton", progress=False, **arguments)


def test_impossible_sources(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="labels from 0 to 2"):
        ArraySource("x", [image, image], np.array([0, 2]), ("a", "b"))
    with pytest.raises(DataError, match="2 images and 1 labels"):
        ArraySource("x", [image, image], np.array([0]), ("a", "b"))
    for wrong in (image.astype(np.float32), image[..., 0], image[:0]):
        with pytest.raises(DataError, match="image 1 of x is"):
            write_beton(
                ArraySource("x", [image, wrong], np.array([0, 1]), ("a", "b")), tmp_path / "x.beton", progress=False
            )
    long = np.zeros((1, 70_000, 3), np.uint8)
    with pytest.raises(DataError, match="max_resolution"):
        write_beton(
            ArraySource("x", [long], np.array([0]), ("a",)), tmp_path / "x.beton", max_resolution=None, progress=False
        )
    with pytest.raises(DataError, match=r"ends in \.beton"):
        write_beton(ArraySource("x", [image], np.array([0]), ("a",)), tmp_path / "x", progress=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "bytes where its sidecar says"),
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: sidecar_path(path).unlink(), "has no sidecar"),
        (lambda path: sidecar_path(path).write_text("{}"), "is no sidecar"),
        (lambda path: _flip_a_bit(path), "SHA-256"),
    ],
)
def test_verify_finds_damage(toy: Toy, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.beton"
    for belonging in (lambda beton: beton, sidecar_path, names_path):
        shutil.copy(belonging(toy.beton), belonging(path))
    assert verify_beton(path) == read_sidecar(toy.beton)
    damage(path)
    with pytest.raises(DataError, match=message):
        verify_beton(path)


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 + SIZE] ^= 1
    path.write_bytes(content)
