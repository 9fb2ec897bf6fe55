"""What a command leaves behind: result.json, the picture of expert load, and the last line on standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from vmoe.train.result import headline
from vmoe.train.runfolder import write_json


def announce(result: dict[str, Any], folder: Path) -> None:
    """Write the result and its picture into the folder and print where it is and what it says."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "result.json"
    write_json(path, result)
    try:
        from vmoe.report.plots import save_expert_load

        save_expert_load(result, folder / "expert_load.png")
    except ImportError as error:
        print(f"no picture of expert load: {error}", file=sys.stderr)
    print(f"{path}  {headline(result)}", flush=True)
