"""`vmoe compare`: runs side by side, as a table in the terminal, a plot, or a folder with a page of everything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vmoe.report import read_run
from vmoe.report.comparison import comparison_markdown, comparison_table
from vmoe.report.differences import Differences, differences
from vmoe.report.seeds import rows_of

MOST_LINES = 12  # of configs, below a table in the terminal


def run(options: argparse.Namespace) -> None:
    rows = rows_of([read_run(folder) for folder in options.runs], each=options.each)
    table, differing = comparison_table(rows), differences(rows)
    if options.format == "csv":
        print(table.csv(), end="")
    elif options.format == "markdown":
        print(comparison_markdown(table, differing), end="")
    else:
        print(table.text() + _in_the_terminal(differing), end="")
    if options.plot is not None:
        from vmoe.report.comparison_page import save_scores

        print(save_scores(rows.rows, Path(options.plot)), file=sys.stderr)
    if options.output is not None:
        from vmoe.report.comparison_page import save_comparison

        print(save_comparison(rows, Path(options.output)), file=sys.stderr)


def _in_the_terminal(differing: Differences) -> str:
    """The config lines that differ, where they are few; else those that all configs have, or how many there are."""
    if not differing.lines:
        return ""
    further = f"\nThe configs differ in {differing.lines} keys; --output FOLDER writes a page that shows them.\n"
    tables = differing.tables if differing.lines <= MOST_LINES else (differing.shared,)
    if not 0 < sum(len(table.rows()) for table in tables) <= MOST_LINES:
        return further
    shown = "".join(f"\n{table.text()}" for table in tables)
    return shown if differing.lines <= MOST_LINES else shown + further
