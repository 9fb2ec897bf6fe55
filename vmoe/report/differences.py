"""The lines of the configs in which the rows of a comparison differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vmoe.report.seeds import Row, Rows
from vmoe.report.table import Column, Table

ABSENT, UNKNOWN = "–", "?"
NO_SUCH_KEY = "–: the config has no such key; its gate, experts or task have others, or its version of vmoe had none."
NOT_READ = "?: the run has no config that can be read."


@dataclass(frozen=True)
class Differences:
    """Tables with a line for each key that has not the same value in all rows, and a column for each row.

    shared: of keys that all configs have. own: of those that some lack, mostly since their gates differ.
    """

    shared: Table
    own: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those with any line."""
        return tuple(table for table in (self.shared, self.own) if table.rows())

    @property
    def lines(self) -> int:
        return sum(len(table.rows()) for table in self.tables)


def differences(rows: Rows) -> Differences:
    """Of the rows whose configs can be read. Seeds and what changes nothing of a result are left out."""
    known = [row.config for row in rows.rows if row.config is not None]
    keys = _together(list(dict.fromkeys(key for config in known for key in config)))
    differing = [key for key in keys if len({config.get(key) for config in known}) > 1]
    shared = [key for key in differing if all(key in config for config in known)]
    own = [key for key in differing if key not in shared]
    notes = [NOT_READ] if len(known) < len(rows.rows) else []
    return Differences(_table(rows.rows, shared, notes), _table(rows.rows, own, [NO_SUCH_KEY, *notes]))


def _table(rows: Sequence[Row], keys: Sequence[str], notes: Sequence[str]) -> Table:
    columns = [Column("config", tuple(keys), {"config": tuple(keys)}, numeric=False)]
    for row in rows:
        cells = tuple(UNKNOWN if row.config is None else row.config.get(key, ABSENT) for key in keys)
        columns.append(Column(row.label, cells, {row.label: cells}, numeric=False))
    return Table(tuple(columns), " ".join(notes))


def _together(keys: list[str]) -> list[str]:
    """Sections in the order of the first config that has them, the keys of a section side by side."""
    order: dict[str, int] = {}
    for key in keys:
        for end in _ends(key):
            order.setdefault(key[:end], len(order))
    return sorted(keys, key=lambda key: [order[key[:end]] for end in _ends(key)])


def _ends(key: str) -> list[int]:
    """Where each part of a dotted key ends."""
    return [at for at, character in enumerate(key) if character == "."] + [len(key)]
