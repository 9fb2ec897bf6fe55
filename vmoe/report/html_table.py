"""A table on a page: its first column stays in sight where the others are scrolled (rules: `run_page.css`)."""

from __future__ import annotations

from collections.abc import Collection

from vmoe.report.page import escape
from vmoe.report.table import Column, Table


def html_table(table: Table, *, label: str, best: Collection[tuple[int, str]] = ()) -> str:
    """label: what it is, for people who do not see it. best: rows' numbers and keys of the columns' values, in bold."""
    headers = "".join(f'<th scope="col"{_class(column)}>{escape(column.header)}</th>' for column in table.columns)
    rows = "".join(_row(table, number, cells, best) for number, cells in enumerate(table.rows()))
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0"><table class="rows">'
        f"<thead><tr>{headers}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(table: Table, number: int, cells: tuple[str, ...], best: Collection[tuple[int, str]]) -> str:
    first, *others = cells
    shown = [f'<th scope="row">{escape(first)}</th>']
    for column, cell in zip(table.columns[1:], others, strict=True):
        text = escape(cell)
        if any((number, key) in best for key in column.values):
            text = f"<strong>{text}</strong>"
        shown.append(f"<td{_class(column)}>{text}</td>")
    return f"<tr>{''.join(shown)}</tr>"


def _class(column: Column) -> str:
    return ' class="number"' if column.numeric else ""
