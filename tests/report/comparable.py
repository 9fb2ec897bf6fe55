"""Made-up run folders for the tests of comparisons: a result, a config, and a log where it is wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synthetic import result, text_result, write

from vmoe.report import Run, read_run

CONFIG = """\
task: images
output: {folder}
seed: {seed}
model:
  name: vit_tiny_patch16_224
moe:
  gate:
    kind: {gate}
    balance: {balance}
data:
  train: digits
  crop_scale:
  - 0.9
  - 1.0
  workers: {workers}
schedule:
  max_steps: {max_steps}
train:
  log_every: {log_every}
"""


def run_of(
    folder: Path,
    seed: int | None = 0,
    *,
    gate: str = "topk",
    balance: str = "0.01",
    workers: str = "null",
    max_steps: str = "null",
    log_every: int = 50,
    text: bool = False,
    **changes: Any,
) -> Run:
    """A run folder with a config of these values. changes: of its result."""
    make = text_result if text else result
    write(folder, make(gate, seed=seed, **changes))
    content = CONFIG.format(
        folder=folder,
        seed=seed,
        gate=gate,
        balance=balance,
        workers=workers,
        max_steps=max_steps,
        log_every=log_every,
    )
    (folder / "config.yaml").write_text(content, encoding="utf-8")
    return read_run(folder)


def log(folder: Path, *lines: dict[str, Any]) -> Path:
    """The run's log. lines: with kind and step."""
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps({"epoch": 1.0, **line}) + "\n" for line in lines), encoding="utf-8")
    return path
