"""What an evaluation leaves of each class."""

from __future__ import annotations

from pathlib import Path

from vmoe.report.classes import CLASSES, ClassAccuracy, save_classes
from vmoe.train.task import Scores

from .tasks import Assembly, Entry


def save_class_accuracy(scores: Scores, assembly: Assembly, entry: Entry, folder: Path) -> None:
    """Write classes.csv into the folder, a row for each class that has images; nothing for a task without classes.

    entry: the checkpoint's about its data.
    """
    if scores.by_label is None:
        return
    labels, names = entry["classes"], assembly.label_names(entry)
    rows = [
        ClassAccuracy(labels[label], names[label], seen, correct)
        for label, seen, correct in zip(*scores.by_label, strict=True)
        if seen
    ]
    save_classes(rows, folder / CLASSES)
