"""`vmoe eval --against`: one checkpoint on two copies of the same images, such as a .beton file and its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vmoe.files import write_json
from vmoe.report.paired import Paired, against_table
from vmoe.train.evaluate import Evaluation
from vmoe.train.result import FORMAT
from vmoe.train.task import Kept

from .subject import Subject

RECORD = "against.json"
PARTS = ("data", "against")  # folders of the two evaluations, in the folder of both


def check_same_images(first: Any, second: Any, names: tuple[str, str]) -> bool:
    """Whether names of files could be compared too, beside labels.

    Raises `ValueError` unless two loaders hold the same images in the same order, as far as these tell. names: of what
    they read.
    """
    one, other = first.labels, second.labels
    allowed = (
        "allowed with --against: the same images in the same order, as `vmoe write` makes a .beton file of a folder"
    )
    if len(one) != len(other):
        raise ValueError(f"{names[0]} holds {len(one):,} images and {names[1]} {len(other):,}; {allowed}")
    if (differing := np.flatnonzero(one != other)).size:
        place = int(differing[0])
        classes = first.classes
        raise ValueError(
            f"image {place} of {names[0]} is of class {classes[one[place]]}, that of {names[1]} of class"
            f" {classes[other[place]]}; {allowed}"
        )
    files = first.names(), second.names()
    if files[0] is None or files[1] is None:
        return False
    for place, (here, there) in enumerate(zip(*files, strict=True)):
        if here != there:
            raise ValueError(f"image {place} of {names[0]} is '{here}', that of {names[1]} '{there}'; {allowed}")
    return True


def pair(first: Kept, second: Kept) -> Paired:
    """Raises `RuntimeError` where the loaders did not deliver the labels that were compared."""
    if not first.target.equal(second.target):
        raise RuntimeError("the evaluations saw other labels than their data sets hold")
    return Paired.of(first.predicted.numpy(), second.predicted.numpy(), first.target.numpy())


def announce_pair(subjects: list[Subject], evaluations: list[Evaluation], folder: Path, *, by_name: bool) -> None:
    """Write against.json and its table into the folder, and print the table and where they are.

    by_name: whether the images were compared by the names of their files too.
    """
    kept = [evaluation.scores.kept for evaluation in evaluations]
    first, second = kept
    assert first is not None, "asked for by Judging.paired"
    assert second is not None
    paired = pair(first, second)
    results = [subject.outcome_of(one).result for subject, one in zip(subjects, evaluations, strict=True)]
    names = [subject.prepared.config.data.val for subject in subjects]
    record = {
        "format": FORMAT,
        "checkpoint": subjects[0].prepared.name,
        "names_compared": by_name,
        "paired": paired.record(),
        **dict(zip(PARTS, results, strict=True)),
    }
    path = folder / RECORD
    write_json(path, record)
    table = against_table(names, results, paired)
    path.with_suffix(".md").write_text(table.markdown(), encoding="utf-8")
    path.with_suffix(".csv").write_text(table.csv(), encoding="utf-8")
    print(f"\n{table.text()}\n{path}  {paired.difference:+.2f} points of top-1", flush=True)
