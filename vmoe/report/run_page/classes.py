"""How well the model tells each class: all of them where they are few, else the worst and the best."""

from __future__ import annotations

from collections.abc import Sequence

from vmoe.report.classes import CLASSES, ClassAccuracy
from vmoe.report.run_files import RunFiles
from vmoe.report.runs import RESULT
from vmoe.report.table import Column, Table

from .blocks import Absent, Block, Tabled, Words
from .reasons import basis, why

MOST = 20  # classes in one table
ENDS = 10  # of more, at either end


def has_classes(files: RunFiles) -> bool:
    """Whether there is anything to say of classes, be it that it cannot be read."""
    return files.classes is not None or any(CLASSES in problem for problem in files.problems)


def classes(files: RunFiles) -> list[Block]:
    if not files.classes:
        return [Absent(f"No accuracy by class: {why(files, CLASSES)}")]
    ordered = sorted(files.classes, key=lambda one: one.accuracy)
    accuracies = [one.accuracy for one in ordered]
    middle = accuracies[len(ordered) // 2] if len(ordered) % 2 else sum(accuracies[len(ordered) // 2 - 1 :][:2]) / 2
    calibration = None if files.run is None else files.run.measured.get("calibration_error")
    told = (
        f"{len(ordered):,} classes ({basis(files)}): mean accuracy {sum(accuracies) / len(ordered):.2f} %, median"
        f" {middle:.2f} %, from {accuracies[0]:.2f} to {accuracies[-1]:.2f} %."
    )
    if calibration is not None:
        told += (
            f" Expected calibration error {calibration:.4f}, 0 to 1: by so much confidence and accuracy differ, in the"
            f" mean over 15 bins of confidence ({RESULT})."
        )
    if len(ordered) <= MOST:
        return [Words(told), _table("Accuracy by class", ordered, "The worst first.")]
    return [
        Words(told),
        _table("Classes told worst", ordered[:ENDS], f"The {ENDS} classes told worst; {CLASSES} has all of them."),
        _table("Classes told best", ordered[: -ENDS - 1 : -1], f"The {ENDS} classes told best."),
    ]


def _table(label: str, shown: Sequence[ClassAccuracy], caption: str) -> Tabled:
    names = tuple(one.name if one.name == one.label else f"{one.name} ({one.label})" for one in shown)
    columns = (
        Column("class", names, {"class": names}, numeric=False),
        Column("images", tuple(f"{one.images:,}" for one in shown), {}),
        Column("right", tuple(f"{one.correct:,}" for one in shown), {}),
        Column("accuracy %", tuple(f"{one.accuracy:.2f}" for one in shown), {}),
    )
    return Tabled(label, Table(columns), caption)
