"""`vmoe report`: a page of each run that shows everything its folder holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from vmoe.report.run_files import check_folder, read_folder


def run(options: argparse.Namespace) -> None:
    if options.output is not None and len(options.runs) > 1:
        raise ValueError(f"--output is {options.output!r} for {len(options.runs)} runs; allowed: one")
    from vmoe.report.run_page import save_run_page

    folders = [Path(folder) for folder in options.runs]
    for folder in folders:
        check_folder(folder)  # all are runs before the first page is written
    for folder in folders:
        output = Path(options.output) if options.output is not None else folder / "report"
        print(save_run_page(read_folder(folder), output), flush=True)
