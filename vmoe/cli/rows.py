"""`vmoe eval --csv`: a table that many evaluations write into, a row for each."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmoe.files import replace_file
from vmoe.untrusted import open_file

from .flatten import flatten
from .subject import Prepared

KEY = ("checkpoint", "data", "set", "classes", "flip")  # what makes it another evaluation

Row = dict[str, str]


def row_of(prepared: Prepared, overrides: list[str], result: Mapping[str, Any]) -> Row:
    """The row of an evaluation: what was evaluated how, and every number of its result but those of single layers."""
    figures = flatten(dict(result))
    judging = prepared.judging
    key = {
        "checkpoint": prepared.name,
        "data": figures.pop("data"),
        "set": " ".join(overrides),
        "classes": judging.classes,
        "flip": int(judging.flip),
    }
    shown = {**key, **figures}
    return {name: "" if value is None else str(value) for name, value in shown.items() if not isinstance(value, list)}


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `put_row` wrote, none where there is no file. Raises `ValueError` for any other file."""
    if not path.exists():
        return []
    allowed = f"allowed: no file, or one whose columns begin with {', '.join(KEY)}, as vmoe eval --csv writes it"
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = tuple(reader.fieldnames or ())
            rows: list[dict[Any, Any]] = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--csv is '{path}', which cannot be read ({error}); {allowed}") from None
    if columns[: len(KEY)] != KEY or len(set(columns)) < len(columns):
        raise ValueError(f"--csv is '{path}', whose columns are {', '.join(columns)[:80] or 'none'}; {allowed}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"--csv is '{path}', where row {number} has more or fewer cells than columns; {allowed}")
    return rows


def check_rows(path: Path) -> None:
    """Raise `ValueError` where rows could not be put into the file, before any evaluation."""
    read_rows(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"--csv is '{path}', whose folder does not exist; allowed: a file in a folder that does")
    if path.is_dir():
        raise ValueError(f"--csv is '{path}', a folder; allowed: a file")


def put_row(path: Path, row: Row) -> None:
    """Put a row into the file, in the place of that of the same evaluation if there is one, else at the end.

    Other rows stay as they are. The file is whole at any time, and several commands may write into it at once.
    """
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # given back with the descriptor
        rows = read_rows(path)
        key = [row[name] for name in KEY]
        places = [place for place, other in enumerate(rows) if [other[name] for name in KEY] == key]
        if places:
            rows[places[0]] = row
        else:
            rows.append(row)
        _write(path, rows)
    finally:
        os.close(folder)


def _write(path: Path, rows: list[Row]) -> None:
    columns = dict.fromkeys(name for row in rows for name in row)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, stream.getvalue().encode())
