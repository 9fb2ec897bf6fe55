"""`vmoe eval --theta`: a trained Routing-Free checkpoint at several thresholds θ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmoe.config import parse_moe
from vmoe.files import write_json
from vmoe.moe import RoutingFree, at_threshold
from vmoe.report import parse_sweep, sweep_table
from vmoe.train.result import FORMAT

from .outcome import picture_of
from .subject import Prepared, Subject


def parse_thresholds(text: str) -> list[float]:
    """θ of ``0.8,0.9,1.0``, in ascending order. Raises `ValueError` naming the entry that is wrong."""
    allowed = "allowed: positive numbers with commas between them, each once, such as 0.8,0.9,1.0"
    thresholds: list[float] = []
    for entry in text.split(","):
        try:
            threshold = float(entry)
        except ValueError:
            raise ValueError(f"--theta is {text!r}, where {entry!r} is not a number; {allowed}") from None
        if not 0 < threshold < math.inf:
            raise ValueError(f"--theta is {text!r}, where {entry!r} is not positive and finite; {allowed}")
        if threshold in thresholds:
            raise ValueError(f"--theta is {text!r}, where {threshold} stands twice; {allowed}")
        thresholds.append(threshold)
    return sorted(thresholds)


def trained_threshold(checkpoint: Prepared) -> float:
    """The θ a checkpoint was trained with. Raises `ValueError` for a gate that has none."""
    gate = parse_moe(checkpoint.stored["model"]["moe"]).gate
    if not isinstance(gate, RoutingFree):
        raise ValueError(f"{checkpoint.name}: its gate is '{gate.kind}'; allowed with --theta: routing_free")
    return gate.threshold


def sweep(subject: Subject, thresholds: Sequence[float]) -> None:
    """Evaluate at every θ; the first process writes the table, the plot and the record, and prints the table."""
    rows = []
    for threshold in thresholds:
        with at_threshold(subject.model, threshold):
            rows.append({"threshold": threshold, **subject.evaluate().result})
    record = {
        "format": FORMAT,
        "checkpoint": str(subject.prepared.name),
        "trained_threshold": trained_threshold(subject.prepared),
        "rows": rows,
    }
    if subject.processes.first:
        announce_sweep(record, subject.prepared.folder)


def announce_sweep(record: dict[str, Any], folder: Path) -> None:
    """Write sweep.json, its table and its plot into the folder, and print the table and where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.json"
    write_json(path, record)
    outcome = parse_sweep(record, folder)
    table = sweep_table(outcome)
    path.with_suffix(".md").write_text(table.markdown(), encoding="utf-8")
    path.with_suffix(".csv").write_text(table.csv(), encoding="utf-8")
    with picture_of("the sweep"):
        from vmoe.report.plots import save_sweep

        save_sweep(outcome, path.with_suffix(".png"))
    print(f"\n{table.text()}\n{path}  {len(record['rows'])} θ, trained with {outcome.trained}", flush=True)
