"""Where the numbers of a comparison come from: folders, seeds, commits, machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vmoe.report.columns import MISSING
from vmoe.report.reader import read_json
from vmoe.report.run_files import ENVIRONMENT, home_of
from vmoe.report.runs import Run
from vmoe.report.seeds import Rows
from vmoe.report.table import Column, Table

COMMIT = 12  # digits that tell commits apart


def origins(rows: Rows) -> Table:
    """A line for each run: its row, folder, seed, steps, what it was evaluated on, and what it was trained by."""
    runs = [(row.label, run, _environment(run)) for row in rows.rows for run in row.runs]
    columns = {
        "run": [label for label, _, _ in runs],
        "folder": [str(run.folder) for _, run, _ in runs],
        "seed": [_cell(run.seed) for _, run, _ in runs],
        "steps": [_cell(run.steps) for _, run, _ in runs],
        "evaluated on": [_cell(run.data) for _, run, _ in runs],
        "commit": [_commit(found.get("commit")) for _, _, found in runs],
        "device": [_cell(found.get("device")) for _, _, found in runs],
        "trained at": [_cell(found.get("time")) for _, _, found in runs],
    }
    return Table(
        tuple(
            Column(header, tuple(cells), {header: tuple(cells)}, numeric=header in ("seed", "steps"))
            for header, cells in columns.items()
        )
    )


def mixed(rows: Rows) -> tuple[str, ...]:
    """Sentences on rows whose runs are of several commits or devices."""
    notes = []
    for row in rows.rows:
        found = [_environment(run) for run in row.runs]
        for key, names in (("commit", "commits"), ("device", "devices")):
            values = {_cell(one.get(key)) for one in found} - {MISSING}
            if len(values) > 1:
                notes.append(f"{row.label}: its seeds are of {len(values)} {names}.")
    return tuple(notes)


def _environment(run: Run) -> Mapping[str, object]:
    path: Path = home_of(run.folder) / ENVIRONMENT
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _commit(value: object) -> str:
    """Shortened, but for what tells of changes since."""
    digits, plus, changes = _cell(value).partition("+")
    return digits[:COMMIT] + plus + changes


def _cell(value: object) -> str:
    return MISSING if value is None else str(value)
