"""What a command leaves behind: result.json, the picture of expert load, and the last line on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vmoe.files import write_json


class Outcome(NamedTuple):
    """What result.json holds, and the same in one line for people."""

    result: dict[str, Any]
    headline: str


def announce(outcome: Outcome, folder: Path) -> None:
    """Write the result and its picture into the folder and print where it is and what it says."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "result.json"
    write_json(path, outcome.result)
    with picture_of("expert load"):
        from vmoe.report.plots import save_expert_load

        save_expert_load(outcome.result, folder / "expert_load.png")
    print(f"{path}  {outcome.headline}", flush=True)


@contextmanager
def picture_of(what: str) -> Iterator[None]:
    """Go on without a picture where what draws it is not installed, and say so."""
    try:
        yield
    except ImportError as error:
        print(f"no picture of {what}: {error}", file=sys.stderr)
