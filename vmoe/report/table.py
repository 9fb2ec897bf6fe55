"""The table that compares runs: one row a run, as plain text, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import math
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmoe.report.runs import Run

MISSING = "–"
NOTE = (
    "FLOPs: 2 per multiply-add. Routing columns: means over the MoE layers. Entropy: of the load, "
    "1 = perfectly even, ≥ the least possible at this density. Density: active token-expert pairs over all pairs."
)


@dataclass(frozen=True)
class Column:
    """cells: formatted, one a row. values: unrounded, by the names of `result.json`, for CSV."""

    header: str
    cells: tuple[str, ...]
    values: dict[str, tuple[object, ...]]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    note: str = ""

    def text(self) -> str:
        """For the terminal: aligned, numbers to the right, long headers on several lines."""
        widths, headers = [], []
        for column in self.columns:
            width = max(map(_width, column.cells), default=0)
            header = textwrap.wrap(column.header, max(width, 8), break_long_words=False, break_on_hyphens=False)
            headers.append(header)
            widths.append(max([width, *map(_width, header)]))
        height = max(map(len, headers))
        headers = [[""] * (height - len(header)) + header for header in headers]  # they end on the same line
        lines = [self._line(parts, widths) for parts in zip(*headers, strict=True)]
        lines.append("  ".join("─" * width for width in widths))
        lines += [self._line(cells, widths) for cells in self._rows()]
        if self.note:
            lines += ["", *textwrap.wrap(self.note, max(60, len(lines[height])))]
        return "\n".join(lines) + "\n"

    def markdown(self) -> str:
        rules = ["---:" if column.numeric else "---" for column in self.columns]
        rows = [[column.header for column in self.columns], *self._rows()]
        lines = [_markdown_row([cell.replace("|", r"\|").replace("\n", " ") for cell in row]) for row in rows]
        lines.insert(1, _markdown_row(rules))
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Unrounded numbers in their own units under the names of `result.json`; nothing where one is missing."""
        values = {name: cells for column in self.columns for name, cells in column.values.items()}
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(values)
        writer.writerows(zip(*values.values(), strict=True))
        return stream.getvalue()

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        parts = []
        for column, cell, width in zip(self.columns, cells, widths, strict=True):
            padding = " " * (width - _width(cell))
            parts.append(padding + cell if column.numeric else cell + padding)
        return "  ".join(parts).rstrip()

    def _rows(self) -> list[tuple[str, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))


def comparison(runs: Iterable[Run]) -> Table:
    """Accuracy, cost and routing health of runs, side by side. Runs of one name go by their folders instead."""
    runs = list(runs)
    if not runs:
        raise ValueError("nothing to compare: give at least one run")
    names = [run.name for run in runs]
    labels = [run.name if names.count(run.name) == 1 else str(run.folder) for run in runs]
    means = [run.routing.mean if run.routing else None for run in runs]

    def figures(name: str) -> list[float | None]:
        return [None if mean is None else getattr(mean, name) for mean in means]

    entropy, entropy_min = figures("entropy"), figures("entropy_min")
    entropy_cells = tuple(
        MISSING if value == MISSING else f"{value} (≥ {least})"
        for value, least in zip(_fixed(entropy, 3), _fixed(entropy_min, 2), strict=True)
    )
    entropy_values: dict[str, tuple[object, ...]] = {"entropy": tuple(entropy), "entropy_min": tuple(entropy_min)}
    flops, train_flops = [run.flops_per_image for run in runs], [run.train_flops for run in runs]
    params, active = [run.params for run in runs], [run.active_params for run in runs]
    digits = 3 if min([*params, *active]) < 1e5 else 2
    return Table(
        (
            Column("run", tuple(labels), {"run": tuple(labels)}, numeric=False),
            _text("gate", "gate", [run.gate for run in runs]),
            _number("top-1 %", "top1", [run.top1 for run in runs]),
            _number("top-5 %", "top5", [run.top5 for run in runs]),
            _number("params (M)", "params", params, scale=1e6, digits=digits),
            _number("active params (M)", "active_params", active, scale=1e6, digits=digits),
            _scaled("{}FLOPs/image", "flops_per_image", flops, "MGT"),
            _scaled("training {}FLOPs", "train_flops", train_flops, "GTPE"),
            Column("routing entropy", entropy_cells, entropy_values),
            _number("largest load %", "load_max", figures("load_max"), scale=0.01, digits=1),
            _number("load CV", "load_cv", figures("load_cv")),
            _number("dead experts %", "dead", figures("dead"), scale=0.01, digits=1),
            _number("density", "density", figures("density"), digits=3),
            _number("images/s", "images_per_second", [run.images_per_second for run in runs], digits=0),
        ),
        note=NOTE,
    )


def _text(header: str, key: str, values: Sequence[str]) -> Column:
    return Column(header, tuple(values), {key: tuple(values)}, numeric=False)


def _number(header: str, key: str, values: Sequence[float | None], scale: float = 1, digits: int = 2) -> Column:
    return Column(header, _fixed([None if v is None else v / scale for v in values], digits), {key: tuple(values)})


def _scaled(header: str, key: str, values: Sequence[float | None], prefixes: str) -> Column:
    """One prefix for the whole column: the largest that leaves the smallest value at 1 or more."""
    exponents = {"M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    smallest = min((v for v in values if v is not None and v > 0), default=0.0)
    prefix = max((p for p in prefixes if smallest >= exponents[p]), key=exponents.__getitem__, default=prefixes[0])
    return _number(header.format(prefix), key, values, scale=exponents[prefix])


def _fixed(values: Sequence[float | None], digits: int) -> tuple[str, ...]:
    return tuple(MISSING if v is None or math.isnan(v) else f"{v:.{digits}f}" for v in values)


def _width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
