"""Labels of the model for data whose folders are others than the model's classes, and what is refused."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo
from toy import Toy

from vmoe.data import DataError, open_evaluation, write_beton
from vmoe.data.matching import match_classes

NUMBERED = 12  # sorted as text: 0, 1, 10, 11, 2, …


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Folders called 0 to 11, each with one image, whose grey value is 20 times the number."""
    root = tmp_path_factory.mktemp("numbered")
    for number in range(NUMBERED):
        folder = root / "images" / str(number)
        folder.mkdir(parents=True)
        Image.new("RGB", (12, 12), (20 * number,) * 3).save(folder / "x.png")
    write_beton(root / "images", root / "x.beton", mode="raw", workers=1, progress=False)
    return Toy(root / "images", root / "x.beton")


@pytest.mark.parametrize("loader", ["ffcv", "folder"])
def test_folders_called_by_numbers_get_these_as_labels(numbered: Toy, loader: str) -> None:
    names = [f"n{number:08}" for number in range(NUMBERED)]
    opened = open_evaluation(numbered.config(loader), classes=names, match="index")
    assert opened.classes == tuple(names)
    batches = list(opened.epoch(0))
    labels = torch.cat([labels for _, labels in batches])
    greys = torch.cat([images[:, 0, 0, 0] for images, _ in batches])
    assert (20 * labels).equal(greys.long()), "the image and the label of one folder"
    assert labels.tolist() != sorted(labels.tolist()), "the case says nothing unless text sorts otherwise"


@pytest.mark.parametrize("loader", ["ffcv", "folder"])
def test_some_classes_are_found_by_name(toy: Toy, loader: str) -> None:
    model = ["eel", "ant", "dog", "bee", "cat"]
    for match in ("some", "subset"):
        opened = open_evaluation(toy.config(loader), classes=model, match=match)
        labels = torch.cat([labels for _, labels in opened.epoch(0)])
        assert labels.unique_consecutive().tolist() == [4, 2, 0]  # cat, dog, eel
        assert opened.own_classes == (0, 2, 4)
        assert opened.labels.tolist() == labels.tolist()


def match(names: str, model: str, how: str) -> list[int]:
    return match_classes(names.split(), "data.val", model.split(), how).tolist()


def test_each_way_of_matching() -> None:
    assert match("a b c", "a b c", "same") == [0, 1, 2]
    assert match("c a", "a b c", "some") == [2, 0]
    assert match("0 1 10 2 3 4 5 6 7 8 9", "a b c d e f g h i j k", "index") == [0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9]
    assert match("00 01 02", "a b c", "index") == [0, 1, 2]


@pytest.mark.parametrize(("folders", "count"), [("imagenet_a", 200), ("imagenet_r", 200)])
def test_imagenets_subsets_by_their_folders(folders: str, count: int) -> None:
    """As timm numbers them."""
    wnids, numbers = (
        pkgutil.get_data("timm.data", f"_info/{folders}_{what}.txt").decode().split() for what in ("synsets", "indices")
    )
    labels = match_classes(sorted(wnids), "data.val", ImageNetInfo().label_names(), "subset")
    assert len(labels) == count
    assert labels.tolist() == sorted(map(int, numbers))


@pytest.mark.parametrize(
    ("names", "how", "says"),
    [
        ("a b", "same", r"data.val lacks c; allowed too: --classes some, .* or subset"),
        ("b a c", "same", r"their order differs; allowed too: --classes some"),
        ("0 1 2", "same", r"the model lacks 0, 1, 2; data.val lacks a, b, c; allowed too: --classes index"),
        ("a x", "subset", r"1 of 2 classes that the model lacks: x"),
        ("a 1 2", "index", r"names are no numbers: a; .*0 to 2"),
        ("0 1 3", "index", r"that the model lacks: 3"),
        ("0 2", "index", r"lacks classes: 1; .*all of them"),
        ("0 00 1 2", "index", r"two classes of one number"),
        ("0 1 ²", "index", r"no numbers: ²"),
    ],
)
def test_what_is_refused(names: str, how: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        match(names, "a b c", how)


def test_a_file_without_sidecar_names_no_classes(numbered: Toy, tmp_path: Path) -> None:
    bare = tmp_path / "bare.beton"
    bare.write_bytes(numbered.beton.read_bytes())
    names = [str(number) for number in range(NUMBERED)]
    for how in ("some", "subset", "index"):
        with pytest.raises(DataError, match=f"no sidecar; allowed: .*not '{how}'"):
            open_evaluation(numbered.config("ffcv", val=str(bare)), classes=names, match=how)
    opened = open_evaluation(numbered.config("ffcv", val=str(bare)), classes=names)
    assert np.array_equal(np.sort(opened.labels), np.arange(NUMBERED))
