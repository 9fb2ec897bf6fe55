"""`classes.csv`: how many images of each class an evaluation saw, and how many of them the model got right."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from vmoe.files import replace_file
from vmoe.untrusted import open_file

CLASSES = "classes.csv"
HEADER = ["class", "name", "images", "correct", "accuracy"]


@dataclass(frozen=True)
class ClassAccuracy:
    """A class. label: what the data call it, such as its folder. name: for people. images: 1 or more."""

    label: str
    name: str
    images: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Percent."""
        return 100 * self.correct / self.images


def save_classes(classes: list[ClassAccuracy], path: Path) -> None:
    """Write the file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows([one.label, one.name, one.images, one.correct, one.accuracy] for one in classes)
    replace_file(path, stream.getvalue().encode())


def read_classes(path: Path) -> tuple[ClassAccuracy, ...]:
    """Read the file. Raises `ValueError` where it is not what `save_classes` writes."""
    with io.TextIOWrapper(open_file(path), encoding="utf-8", newline="") as file:
        header, *rows = [*csv.reader(file)] or [[]]
    if header != HEADER:
        raise ValueError(f"{path}: its columns are {', '.join(header)}; allowed: {', '.join(HEADER)}")
    found = []
    for number, row in enumerate(rows, start=2):
        try:
            label, name, images, correct, _ = row
            one = ClassAccuracy(label, name, int(images), int(correct))
        except ValueError:
            raise ValueError(f"{path}: line {number} is {','.join(row)[:60]}; allowed: {', '.join(HEADER)}") from None
        if not 0 <= one.correct <= one.images < 2**53 or not one.images:
            raise ValueError(f"{path}: line {number} has {correct} of {images} images; allowed: 0 to all of 1 or more")
        found.append(one)
    return tuple(found)
