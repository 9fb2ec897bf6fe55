"""Files of images: known of a folder, kept beside a .beton file; and the reassessed labels, which go by them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import COUNTS, IMAGES, Toy

from vmoe.data import ArraySource, DataError, open_evaluation, verify_beton, write_beton
from vmoe.data.names import names_path
from vmoe.data.real_labels import read_real_labels, real_labels_by_image
from vmoe.data.sidecar import read_sidecar, sidecar_path


@pytest.fixture
def copy(toy: Toy, tmp_path: Path) -> Path:
    """The toy set's file with all that belongs to it, free to be spoiled."""
    for of in (lambda path: path, sidecar_path, names_path):
        shutil.copy(of(toy.beton), of(tmp_path / "toy.beton"))
    return tmp_path / "toy.beton"


def test_both_loaders_know_the_same_files(toy: Toy) -> None:
    expected = tuple(f"{name}/{index:02}.png" for name, count in COUNTS.items() for index in range(count))
    for loader in ("ffcv", "folder"):
        opened = open_evaluation(toy.config(loader))
        assert opened.names() == expected
        assert [expected[place].split("/")[0] for place in opened.indices()] == [
            opened.classes[label] for label in opened.labels
        ]


def test_any_name_of_a_file_survives(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    names = sorted(["two\nlines.png", "\udcff.png", "ä.png"])  # the second is no UTF-8
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(folder / name)
    path = tmp_path / "x.beton"
    write_beton(tmp_path / "images", path, mode="raw", workers=1, progress=False)
    config = Toy(tmp_path / "images", path).config("ffcv")
    assert open_evaluation(config).names() == tuple(f"a/{name}" for name in names)


def test_files_from_before_names_were_kept_still_open(toy: Toy, copy: Path) -> None:
    sidecar = json.loads(sidecar_path(copy).read_text())
    del sidecar["files"]
    sidecar_path(copy).write_text(json.dumps(sidecar))
    names_path(copy).unlink()
    assert verify_beton(copy).samples == IMAGES
    assert open_evaluation(toy.config("ffcv", val=str(copy))).names() is None


def test_names_of_another_file_are_refused(toy: Toy, copy: Path) -> None:
    opened = open_evaluation(toy.config("ffcv", val=str(copy)))
    names_path(copy).write_text(names_path(copy).read_text().replace("cat", "cow"))
    for look in (opened.names, lambda: verify_beton(copy)):
        with pytest.raises(DataError, match=r"toy\.beton\.files\.json' does not hold the file names"):
            look()
    names_path(copy).unlink()
    for look in (opened.names, lambda: verify_beton(copy)):
        with pytest.raises(DataError, match=r"cannot be read .*vmoe write"):
            look()
    assert len(list(opened.epoch(0))) == 8, "images are read without"


def test_arrays_leave_no_names_behind(copy: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    source = ArraySource("arrays", [image] * 3, np.arange(3), ("a", "b", "c"))
    write_beton(source, copy, mode="raw", workers=1, overwrite=True, progress=False)
    assert not names_path(copy).exists()
    assert read_sidecar(copy).files is None


# --- reassessed labels -----------------------------------------------------------------------------------


def test_labels_go_by_the_numbers_of_names() -> None:
    real = ((7,), (), (1, 2))
    names = ["n03/ILSVRC2012_val_00000003.JPEG", "ILSVRC2012_val_00000001.png", "x/ILSVRC2012_val_00000002"]
    assert real_labels_by_image(real, names, "here") == ((1, 2), (7,), ())


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (None, "here does not hold them; allowed: an image folder, or a .beton file"),
        (["a/1.png"], r"here holds 'a/1.png'; allowed: ILSVRC2012_val_00000001 to 00000002"),
        (["ILSVRC2012_val_00000003.JPEG"], "00000003.JPEG'; allowed"),
        (["ILSVRC2012_val_00000000.JPEG"], "00000000.JPEG'; allowed"),
        (["a/ILSVRC2012_val_00000001.JPEG", "b/ILSVRC2012_val_00000001.JPEG"], "one of them twice"),
    ],
)
def test_names_without_labels_are_refused(names: list[str] | None, says: str) -> None:
    with pytest.raises(DataError, match=says):
        real_labels_by_image(((1,), (2,)), names, "here")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[[1], [2, 10]]", r"image 2 has \[2, 10\]; allowed: .* 0 to 9"),
        ("[[1], 2]", "image 2 has 2"),
        ("[[true]]", "image 1 has"),
        ('{"a": 1}', "holds no list"),
        ("[[1", "is no JSON"),
    ],
)
def test_files_of_labels_that_are_none(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "real.json"
    path.write_text(content)
    with pytest.raises(DataError, match=says):
        read_real_labels(str(path), 10)
    with pytest.raises(FileNotFoundError, match=r"--real is .*nearest: .*real\.json"):
        read_real_labels(str(tmp_path / "reall.json"), 10)


def test_the_copy_of_timm_is_of_all_validation_images() -> None:
    """50,000 of them, of which the paper leaves out 3,163 without a label (its section 3: 46,837 are left)."""
    real = read_real_labels("timm", 1000)
    assert len(real) == 50_000
    assert sum(map(bool, real)) == 46_837
