"""Run folders: what `result.json` says, checked and as immutable values.

A run folder holds ``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``checkpoints/`` and, once the model
has been evaluated, ``result.json``. The keys of `result.json` are ``format``, those of `Run`, `Routing`, `Layer` and
`Figures` below, and those of the measures of the run's task (a layer holds its figures, and a result its measures,
beside its other keys); further keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vmoe.report.reader import Reader, read_json
from vmoe.report.tasks import Task, task_named

RESULT = "result.json"
FORMAT = 1


@dataclass(frozen=True)
class Figures:
    """Routing figures of one layer, or their mean over layers; docs/methods.md defines them.

    Those that may be None were not counted, as without labels, or are of a result that is older than they are.
    """

    entropy: float
    entropy_min: float
    token_entropy: float
    load_cv: float
    load_max: float
    dead: float
    density: float
    load_max_ratio: float | None
    load_min_ratio: float | None
    nearly_dead: float | None
    compute_density: float | None
    label_information: float | None
    label_information_share: float | None
    changed: float | None


@dataclass(frozen=True)
class Layer:
    """One MoE layer.

    layer: its module's name, such as ``blocks.1.mlp``.
    load: share of the active pairs, per expert. gate_mass: share of the summed weights; empty in older results.
    experts_per_token: number of tokens with 0, 1, …, E active experts.
    """

    layer: str
    figures: Figures
    load: tuple[float, ...]
    gate_mass: tuple[float, ...]
    experts_per_token: tuple[int, ...]


@dataclass(frozen=True)
class Routing:
    mean: Figures
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Run:
    """One evaluated run. Values that `result.json` may hold as null are None here.

    measured: what runs of this task measure, by the keys of `result.json`. train_flops: spent in training.
    active_params: None for an evaluation that did not count the routing. routing: None for a model without MoE layers.
    """

    name: str
    folder: Path
    task: Task
    gate: str
    model: str
    measured: Mapping[str, float | None]
    loss: float | None
    params: int
    active_params: float | None
    train_flops: float | None
    steps: int | None
    seed: int | None
    data: Any
    routing: Routing | None


def read_run(folder: str | Path) -> Run:
    """Read the `result.json` of a run folder, or of any folder that holds one.

    Raises FileNotFoundError where there is none, ValueError where it is not what `Run` describes.
    """
    folder = Path(folder)
    file = folder / RESULT
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; name the `output` folder of a run")
    if not file.exists():
        checkpoint = folder / "checkpoints" / "last.pt"
        remedy = f"evaluate it: vmoe eval {checkpoint}" if checkpoint.exists() else "is it the folder of a run?"
        raise FileNotFoundError(f"{folder} has no {RESULT}; {remedy}")
    try:
        result = read_json(file)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # not JSON, or not even UTF-8
        raise ValueError(f"{file} is not valid JSON ({error}); evaluate the run again with vmoe eval") from error
    return parse_result(result, folder)


def parse_result(result: object, folder: str | Path) -> Run:
    """Check the content of a `result.json`. folder: where it lies or is going to, for the run's name and errors."""
    folder = Path(folder)
    return take_run(Reader(result, str(folder / RESULT)), folder)


def take_run(reader: Reader, folder: Path) -> Run:
    """The run that a mapping with the keys of `result.json` describes."""
    check_format(reader)
    task = task_named(reader)
    return Run(
        name=_name(folder),
        folder=folder,
        task=task,
        gate=reader.text("gate"),
        model=reader.text("model"),
        measured={measure.key: measure.read(reader, measure.key) for measure in task.measures},
        loss=reader.optional_number("loss"),
        params=reader.integer("params"),
        active_params=reader.optional_number("active_params"),
        train_flops=reader.optional_number("train_flops"),
        steps=reader.optional_integer("steps"),
        seed=reader.optional_integer("seed"),
        data=reader.plain("data"),
        routing=_routing(reader.inner("routing")),
    )


def check_format(reader: Reader) -> None:
    """Raise ValueError for a ``format`` that this version does not read."""
    if (number := reader.integer("format")) != FORMAT:
        allowed = f"this version of vmoe reads {FORMAT}: evaluate the run again with it"
        raise ValueError(f"{reader.where}: format is {number}; {allowed}")


def _name(folder: Path) -> str:
    """``RUN``, and for an evaluation inside a run's folder ``RUN/eval`` or ``RUN/eval/NAME``."""
    parts = folder.absolute().parts
    length = 2 if parts[-1] == "eval" else 3 if parts[-2:-1] == ("eval",) else 1
    return "/".join(parts[-length:])


def _routing(reader: Reader) -> Routing | None:
    layers = tuple(map(_layer, reader.inner_list("layers")))
    return Routing(_figures(reader.inner("mean")), layers) if layers else None


def _layer(reader: Reader) -> Layer:
    layer = Layer(
        layer=reader.text("layer"),
        figures=_figures(reader),
        load=tuple(reader.numbers("load")),
        gate_mass=tuple(reader.numbers("gate_mass")) if reader.has("gate_mass") else (),
        experts_per_token=tuple(int(count) for count in reader.numbers("experts_per_token")),
    )
    bins, experts = len(layer.experts_per_token), len(layer.load)
    if experts == 0 or bins != experts + 1:
        allowed = f"one more than load's {experts} experts"
        raise ValueError(f"{reader.where}: experts_per_token has {bins} counts; allowed: {allowed}")
    if layer.gate_mass and len(layer.gate_mass) != experts:
        raise ValueError(f"{reader.where}: gate_mass has {len(layer.gate_mass)} shares; allowed: load's {experts}")
    return layer


def _figures(reader: Reader) -> Figures:
    values: dict[str, Any] = {}
    for field in fields(Figures):
        if "None" not in str(field.type):
            values[field.name] = reader.number(field.name)
        else:
            values[field.name] = reader.optional_number(field.name) if reader.has(field.name) else None
    return Figures(**values)
