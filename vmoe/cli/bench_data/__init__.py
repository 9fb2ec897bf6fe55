"""`vmoe bench-data`: each stage between the disk and the model, timed on the user's own data, and where a sample waits.

Loaders are timed alone, one after another; then what happens to a prepared batch on the device, and the model's own
steps. Nothing is written but embedded data sets, as for a run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from vmoe.config import RunConfig, load_config
from vmoe.data.stages import Judged, Measured, judge
from vmoe.report.table import Column, Table
from vmoe.train.distributed import Processes, start_processes

from .on_device import OnDevice, Stage
from .subjects import SUBJECTS, open_each

FORMAT = 1
MOST_BATCHES = 100_000
LOADERS, WAY, MODEL = 0.7, 0.05, 0.2  # of the seconds; the way to the model has two stages
ON_CPU = "Loader and model share the cores here, and were timed one at a time: together they are slower."


@dataclass(frozen=True)
class Bench:
    """What was timed. unit: of the rates. loaders: by name. judged: each of them, against the model. skipped: loaders
    that were not timed, and why. notes: what to know of the numbers.
    """

    unit: str
    stages: tuple[Stage, ...]
    loaders: dict[str, Measured]
    judged: dict[str, Judged]
    skipped: dict[str, str]
    notes: tuple[str, ...]


def run(options: argparse.Namespace) -> None:
    numbers = {"seconds": options.seconds, "batches": options.batches, "processes": options.processes}
    for name, value in numbers.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"--{name} is {value:g}; allowed: more than 0")
    if options.batches > MOST_BATCHES:  # whose order is laid out before the first one
        raise ValueError(f"--batches is {options.batches}; allowed: 1 to {MOST_BATCHES}")
    config = load_config(options.config, options.overrides)
    with start_processes(config.train.device) as here:
        if here.world > 1:
            raise ValueError("it runs as one process; allowed: without torchrun, --processes N for one of a run's N")
        bench = measure(config, here, options)
    print(json.dumps(as_json(bench), indent=2) if options.json else as_text(bench))


def measure(config: RunConfig, here: Processes, options: argparse.Namespace) -> Bench:
    """Time everything. Raises `DataError` where none of the loaders can read the config's data."""
    among = replace(here, world=options.processes, local_world=options.processes)
    subject = SUBJECTS[config.task](config, among)
    opened, skipped = open_each(subject)
    seconds = LOADERS * options.seconds / len(opened)
    loaders = {name: subject.measure(name, data, seconds, options.batches) for name, data in opened.items()}
    stages = [Stage(name, *stage) for name, found in loaders.items() for stage in found.rates.items()]
    on_device = OnDevice(config, next(iter(opened.values())), here, most=subject.micro_batch_size)
    stages += on_device.way_to_the_model(subject.blank(on_device.task), WAY * options.seconds)
    model, notes = None, []
    if not options.no_model:
        stages.append(on_device.model(MODEL * options.seconds, forward_only=options.forward_only))
        model = stages[-1].rate
        notes = [ON_CPU] if here.device.type == "cpu" else []
    judged = {name: judge(measured, model) for name, measured in loaders.items()}
    return Bench(on_device.task.UNIT, tuple(stages), loaders, judged, skipped, tuple(notes))


def as_text(bench: Bench) -> str:
    """The table, and what it says."""
    stages = bench.stages
    columns = {
        "where": [stage.place for stage in stages],
        "stage": [stage.name for stage in stages],
        f"{bench.unit}s/s": [f"{stage.rate.median:,.0f}" for stage in stages],
        "quartiles": [f"{stage.rate.low:,.0f} – {stage.rate.high:,.0f}" for stage in stages],
        "repeats": [str(stage.rate.repeats) for stage in stages],
        "µs each": [f"{1e6 * stage.rate.seconds:,.1f}" for stage in stages],
    }
    words = ("where", "stage")
    table = Table(tuple(Column(name, tuple(cells), {}, name not in words) for name, cells in columns.items()))
    lines = [table.text()]
    for name, judged in bench.judged.items():
        times = "" if judged.ratio is None else f": the loader gives {_times(judged.ratio)} what the model takes"
        lines.append(f"{name}: {bench.loaders[name].about()}")
        lines.append(f"  the bottleneck is {judged.bottleneck}{times}")
        lines += [f"  → {advice}" for advice in judged.advice]
    lines += [f"{name}: not timed: {why}" for name, why in bench.skipped.items()]
    return "\n".join([*lines, *bench.notes])


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2f} times"


def as_json(bench: Bench) -> dict[str, Any]:
    """For machines: rates in units a second, in the order of the table."""
    about = {name: {"about": bench.loaders[name].about(), **asdict(judged)} for name, judged in bench.judged.items()}
    return {
        "format": FORMAT,
        "unit": bench.unit,
        "stages": [{"place": place, "stage": name, **asdict(rate)} for place, name, rate in bench.stages],
        "loaders": about,
        "skipped": bench.skipped,
        "notes": list(bench.notes),
    }
