"""The lines of the configs in which the rows of a comparison differ."""

from __future__ import annotations

from vmoe.report.seeds import Rows
from vmoe.report.table import Column, Table

ABSENT = "–"  # there is no such key, as other gates have other keys
UNKNOWN = "?"
NOTE = (
    "–: the config has no such key, since its gate, experts or task have others, or it is of another version of vmoe."
)
NOT_READ = "?: the run has no config that can be read."


def differences(rows: Rows) -> Table:
    """A line for each key of the configs that has not the same value in all rows, a column for each row.

    Seeds and what changes nothing of a result are left out. There is no line where the configs are equal.
    """
    known = [row.config for row in rows.rows if row.config is not None]
    keys = list(dict.fromkeys(key for config in known for key in config))
    differing = tuple(key for key in _together(keys) if len({config.get(key) for config in known}) > 1)
    columns = [Column("config", differing, {"config": differing}, numeric=False)]
    for row in rows.rows:
        config = row.config
        cells = tuple(UNKNOWN if config is None else config.get(key, ABSENT) for key in differing)
        columns.append(Column(row.label, cells, {row.label: cells}, numeric=False))
    notes = [NOTE] if any(ABSENT in column.cells for column in columns) else []
    if len(known) < len(rows.rows):
        notes.append(NOT_READ)
    return Table(tuple(columns), " ".join(notes))


def _together(keys: list[str]) -> list[str]:
    """Sections in the order of the first config that has them, the keys of a section side by side."""
    order: dict[str, int] = {}
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            order.setdefault(".".join(parts[:length]), len(order))
    return sorted(keys, key=lambda key: [order[key[:end]] for end in _ends(key)])


def _ends(key: str) -> list[int]:
    """Where each part of a dotted key ends."""
    return [at for at, character in enumerate(key) if character == "."] + [len(key)]
