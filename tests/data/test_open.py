"""What is refused before any work begins, and in which words."""

from __future__ import annotations

import builtins
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vmoe.data import ArraySource, DataError, Share, open_evaluation, open_loaders, write_beton
from vmoe.data.sidecar import read_sidecar, sidecar_path

from toy import IMAGES, Toy  # isort: skip


def opening(toy: Toy, loader: str, batch_size: int = 8, **changes: object) -> Callable[[], object]:
    return lambda: open_loaders(toy.config(loader, **changes), seed=0, batch_size=batch_size)


@pytest.fixture
def copy(toy: Toy, tmp_path: Path) -> Toy:
    """The toy set, free to be spoiled."""
    shutil.copytree(toy.folder, tmp_path / "images")
    shutil.copy(toy.beton, tmp_path / "toy.beton")
    shutil.copy(sidecar_path(toy.beton), sidecar_path(tmp_path / "toy.beton"))
    return Toy(tmp_path / "images", tmp_path / "toy.beton")


@pytest.mark.parametrize("key", ["train", "val"])
@pytest.mark.parametrize(
    ("loader", "wrong", "right"), [("ffcv", "tyo.beton", "toy.beton"), ("folder", "image", "images")]
)
def test_a_missing_path_and_the_nearest(copy: Toy, key: str, loader: str, wrong: str, right: str) -> None:
    path = copy.folder.parent / wrong
    with pytest.raises(
        FileNotFoundError, match=rf"data\.{key} is '{path}'.*nearest: '{path.parent / right}'"
    ) as caught:
        opening(copy, loader, **{key: str(path)})()
    assert isinstance(caught.value, DataError)


def test_the_part_of_a_path_that_is_missing_is_corrected(toy: Toy) -> None:
    with pytest.raises(DataError, match=f"nearest: '{toy.folder}'"):
        opening(toy, "folder", train=str(toy.folder.parent / "imags" / "deep" / "train"))()


def test_the_other_loaders_kind_of_path(toy: Toy) -> None:
    with pytest.raises(DataError, match=r"data\.train is .*, a folder; .*data\.loader=folder"):
        opening(toy, "ffcv", train=str(toy.folder))()
    with pytest.raises(DataError, match=r"data\.val is .*, a file; .*data\.loader=ffcv"):
        opening(toy, "folder", val=str(toy.beton))()


def test_folders_without_classes_or_images(copy: Toy) -> None:
    flat = copy.folder / "cat"
    with pytest.raises(DataError, match=r"data\.train is .* 9 images but no class folders"):
        opening(copy, "folder", train=str(flat))()
    (copy.folder / "ant").mkdir()
    with pytest.raises(DataError, match=r"data\.train is .* 1 of 4 class folders hold no image: ant"):
        opening(copy, "folder")()
    with pytest.raises(DataError, match="which is empty"):
        opening(copy, "folder", train=str(copy.folder / "ant"))()


def test_classes_that_differ_are_named(copy: Toy, tmp_path: Path) -> None:
    other = shutil.copytree(copy.folder, tmp_path / "other")
    (other / "eel").rename(other / "elk")
    message = r"data\.val has 3 classes and data\.train 3, .*: data\.train lacks elk; data\.val lacks eel"
    with pytest.raises(DataError, match=message):
        opening(copy, "folder", val=str(other))()
    write_beton(other, tmp_path / "other.beton", workers=1, progress=False)
    with pytest.raises(DataError, match=message):
        opening(copy, "ffcv", val=str(tmp_path / "other.beton"))()
    shutil.rmtree(other / "elk")
    with pytest.raises(DataError, match=r"data\.val has 2 classes and data\.train 3, .*: data\.val lacks eel"):
        opening(copy, "folder", val=str(other))()


def test_evaluation_compares_with_the_models_classes(toy: Toy) -> None:
    assert open_evaluation(toy.config("ffcv"), classes=["cat", "dog", "eel"]).classes == ("cat", "dog", "eel")
    with pytest.raises(DataError, match=r"data\.val has 3 classes and the model 2, .*: the model lacks dog, eel"):
        open_evaluation(toy.config("ffcv"), classes=["cat", "cow"])
    with pytest.raises(DataError, match="their order differs"):
        open_evaluation(toy.config("folder"), classes=["dog", "cat", "eel"])


def test_labels_of_a_file_without_sidecar_must_fit(copy: Toy, tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    many = tmp_path / "many.beton"
    write_beton(
        ArraySource("many", [image] * 20, np.arange(20), tuple(map(str, range(20)))), many, workers=1, progress=False
    )
    sidecar_path(many).unlink()
    with pytest.raises(
        DataError, match=r"data\.val is .* labels up to 19; allowed: 0 to 2, the classes of data\.train"
    ):
        opening(copy, "ffcv", val=str(many))()
    with pytest.raises(
        DataError, match=r"data\.train is .* labels up to 19; allowed: 0 to 2, the classes of data\.val"
    ):
        opening(copy, "ffcv", train=str(many))()
    with pytest.raises(DataError, match="0 to 2, the classes of the model"):
        open_evaluation(copy.config("ffcv", val=str(many)), classes=["a", "b", "c"])


@pytest.mark.parametrize("loader", ["ffcv", "folder"])
def test_fewer_images_than_a_step_takes(toy: Toy, loader: str) -> None:
    with pytest.raises(DataError, match=rf"{IMAGES} images.*data\.batch_size is 38 .*1 processes × 1 batches × 38"):
        opening(toy, loader, batch_size=38)()
    with pytest.raises(DataError, match=r"data\.batch_size is 40 .*2 processes × 5 batches × 4"):
        open_loaders(toy.config(loader), seed=0, batch_size=4, accumulate=5, processes=Share(0, 2))
    with pytest.raises(DataError, match="batches of 0 images"):
        opening(toy, loader, batch_size=0)()
    assert open_loaders(toy.config(loader), seed=0, batch_size=37).train.samples == IMAGES


@pytest.mark.parametrize("size", [0, 10, 1000, 5000, 2**21 + 10])
@pytest.mark.parametrize("with_sidecar", [True, False])
def test_files_that_are_cut_short(copy: Toy, size: int, with_sidecar: bool) -> None:
    content = copy.beton.read_bytes()
    assert len(content) > size
    copy.beton.write_bytes(content[:size])
    if not with_sidecar:
        sidecar_path(copy.beton).unlink()
    with pytest.raises(DataError, match=r"data\.train is .*cut short"):
        opening(copy, "ffcv")()


def test_files_that_are_something_else(copy: Toy) -> None:
    sidecar_path(copy.beton).unlink()
    for content in (b"PK\x03\x04" * 1000, b"\x02\x00" + bytes(5000), b"\x02\x00\x02\x00" + b"\xff" * 5000):
        copy.beton.write_bytes(content)
        with pytest.raises(DataError, match=r"data\.train is .*\.beton"):
            opening(copy, "ffcv")()


def test_a_sidecar_of_another_file(copy: Toy) -> None:
    sidecar = read_sidecar(copy.beton)
    sidecar_path(copy.beton).write_text(sidecar.model_copy(update={"samples": 5}).model_dump_json())
    with pytest.raises(DataError, match=f"holds {IMAGES} images where its sidecar says 5"):
        opening(copy, "ffcv")()
    sidecar_path(copy.beton).write_text(sidecar.model_copy(update={"classes": ("cat", "dog")}).model_dump_json())
    with pytest.raises(DataError, match="image 26 has label 2; allowed: 0 to 1"):
        opening(copy, "ffcv")()
    sidecar_path(copy.beton).write_text("no json")
    with pytest.raises(DataError, match="is no sidecar"):
        opening(copy, "ffcv")()


def test_files_with_other_fields(tmp_path: Path) -> None:
    from ffcv.fields import FloatField, IntField
    from ffcv.writer import DatasetWriter

    path = tmp_path / "other.beton"
    DatasetWriter(str(path), {"x": FloatField(), "y": IntField()}, num_workers=1).from_indexed_dataset([(1.0, 2)] * 4)
    with pytest.raises(DataError, match=r"fields are x \(FloatField\), y \(IntField\); allowed: image .*, label"):
        opening(Toy(tmp_path, path), "ffcv")()


def test_without_ffcv(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__
    for name in [name for name in sys.modules if name.split(".")[0] == "ffcv" or name.startswith("vmoe.data.")]:
        if name.rsplit(".")[-1] in ("ffcv", "beton", "beton_writer") or name.startswith("ffcv"):
            monkeypatch.delitem(sys.modules, name)

    def without(name: str, *arguments: object, **keywords: object) -> object:
        if name.split(".")[0] in ("ffcv", "numba"):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"data\.loader is 'ffcv'.*pip install 'vmoe\[ffcv\]'; .*data\.loader=folder"):
        opening(toy, "ffcv")()
    with pytest.raises(DataError, match=r"pip install 'vmoe\[ffcv\]'"):
        write_beton(toy.folder, tmp_path / "x.beton", progress=False)
    assert open_evaluation(toy.config("folder")).samples == IMAGES


def test_importing_needs_neither_ffcv_nor_scikit_learn() -> None:
    code = "import sys, vmoe.data; print({'ffcv', 'numba', 'cv2', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
