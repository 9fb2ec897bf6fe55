"""`vmoe inspect`: where a trained model sends tokens, on a page to look at."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from vmoe.cli.stored import read_stored
from vmoe.cli.subject import run_of
from vmoe.config import override_config

from .images import inspect_images
from .inspected import Inspected
from .text import inspect_text

INSPECTORS: dict[str, Callable[[Inspected, argparse.Namespace], Path]] = {
    "images": inspect_images,
    "text": inspect_text,
}


def run(options: argparse.Namespace) -> None:
    path = Path(options.checkpoint)
    stored = read_stored(path)
    config = override_config(stored["config"], [], str(path))
    page = Path(options.output) if options.output else run_of(path) / "inspect" / f"{path.stem}.html"
    print(INSPECTORS[config.task](Inspected(path, stored, config, page), options))
