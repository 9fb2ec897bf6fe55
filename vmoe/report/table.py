"""A table as plain text, Markdown or CSV."""

from __future__ import annotations

import csv
import html
import io
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from vmoe.report.page import as_it_reads

LONGEST = 49  # characters of a cell in the terminal


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
        """For the terminal: aligned, numbers to the right, long headers on several lines, long cells cut."""
        widths, headers = [], []
        for column in self.columns:
            width = max((_width(_in_the_terminal(cell)) for cell in column.cells), default=0)
            title = _in_the_terminal(column.header)
            header = textwrap.wrap(title, max(width, 8), break_long_words=False, break_on_hyphens=False)
            headers.append(header)
            widths.append(max([width, *map(_width, header)]))
        height = max(map(len, headers))
        headers = [[""] * (height - len(header)) + header for header in headers]  # they end on the same line
        lines = [self._line(parts, widths) for parts in zip(*headers, strict=True)]
        lines.append("  ".join("─" * width for width in widths))
        lines += [self._line([_in_the_terminal(cell) for cell in cells], widths) for cells in self.rows()]
        if self.note:
            lines += ["", *textwrap.wrap(_in_a_line(self.note), max(60, len(lines[height])))]
        return "\n".join(lines) + "\n"

    def markdown(self) -> str:
        rules = ["---:" if column.numeric else "---" for column in self.columns]
        rows = [[column.header for column in self.columns], *self.rows()]
        lines = [_markdown_row([_as_markdown(cell).replace("|", r"\|") for cell in row]) for row in rows]
        lines.insert(1, _markdown_row(rules))
        if self.note:
            lines += ["", _as_markdown(self.note)]
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

    def rows(self) -> list[tuple[str, ...]]:
        """Cells, row by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))


def _width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _in_a_line(text: str) -> str:
    """What a terminal can show without being told to do anything else."""
    return as_it_reads(text.replace("\n", " ").replace("\t", " "))


def _in_the_terminal(text: str) -> str:
    """In a line, cut in its middle where it is too long."""
    line = _in_a_line(text)
    half = (LONGEST - 1) // 2
    return line if len(line) <= LONGEST else f"{line[:half]}…{line[-half:]}"


def _as_markdown(text: str) -> str:
    """In a line, and no HTML."""
    return html.escape(_in_a_line(text), quote=False)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
