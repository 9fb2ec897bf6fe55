"""`vmoe compare`: one table of several runs, and for runs of one task a plot of what their training bought."""

from __future__ import annotations

import argparse
import sys

from vmoe.report import comparison, read_run


def run(options: argparse.Namespace) -> None:
    runs = [read_run(folder) for folder in options.runs]
    table = comparison(runs)
    print({"text": table.text, "markdown": table.markdown, "csv": table.csv}[options.format](), end="")
    if options.plot is not None:
        from vmoe.report.plots import save_accuracy_against_training

        print(save_accuracy_against_training(runs, options.plot), file=sys.stderr)
