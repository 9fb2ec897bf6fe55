"""`vmoe compare`: one table of several runs."""

from __future__ import annotations

import argparse

from vmoe.report import comparison, read_run


def run(options: argparse.Namespace) -> None:
    table = comparison([read_run(folder) for folder in options.runs])
    print({"text": table.text, "markdown": table.markdown, "csv": table.csv}[options.format](), end="")
