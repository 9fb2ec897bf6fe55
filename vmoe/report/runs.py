"""Run folders: what `result.json` says, checked and as immutable values.

A run folder holds ``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``checkpoints/`` and, once the model
has been evaluated, ``result.json``. The keys of `result.json` are those of `Run`, `Routing`, `Layer` and `Figures`
below (a layer holds its figures beside its other keys) plus ``format``; further keys are ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

RESULT = "result.json"
FORMAT = 1


@dataclass(frozen=True)
class Figures:
    """Routing figures of one layer, or their mean over layers; `vmoe.moe.stats` defines them."""

    entropy: float
    entropy_min: float
    token_entropy: float
    load_cv: float
    load_max: float
    dead: float
    density: float


@dataclass(frozen=True)
class Layer:
    """One MoE layer.

    layer: its module's name, such as ``blocks.1.mlp``.
    load: share of the active pairs, per expert.
    experts_per_token: number of tokens with 0, 1, …, E active experts.
    """

    layer: str
    figures: Figures
    load: tuple[float, ...]
    experts_per_token: tuple[int, ...]


@dataclass(frozen=True)
class Routing:
    mean: Figures
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Run:
    """One evaluated run. Values that `result.json` may hold as null are None here.

    top1, top5: percent. flops_per_image: of one forward, 2 a multiply-add. train_flops: spent in training.
    routing: None for a model without MoE layers.
    """

    name: str
    folder: Path
    gate: str
    model: str
    top1: float
    top5: float | None
    loss: float | None
    eval_samples: int
    params: int
    active_params: float
    flops_per_image: float
    train_flops: float | None
    images_per_second: float | None
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
    if not file.is_file():
        checkpoint = folder / "checkpoints" / "last.pt"
        remedy = f"evaluate it: vmoe eval {checkpoint}" if checkpoint.exists() else "is it the folder of a run?"
        raise FileNotFoundError(f"{folder} has no {RESULT}; {remedy}")
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not even UTF-8
        raise ValueError(f"{file} is not valid JSON ({error}); evaluate the run again with vmoe eval") from error
    return parse_result(result, folder)


def parse_result(result: object, folder: str | Path) -> Run:
    """Check the content of a `result.json`. folder: where it lies or is going to, for the run's name and errors."""
    folder = Path(folder)
    reader = _Reader(result, str(folder / RESULT))
    if (number := reader.integer("format")) != FORMAT:
        allowed = f"this version of vmoe reads {FORMAT}: evaluate the run again with it"
        raise ValueError(f"{reader.where}: format is {number}; {allowed}")
    return Run(
        name=_name(folder),
        folder=folder,
        gate=reader.text("gate"),
        model=reader.text("model"),
        top1=reader.number("top1"),
        top5=reader.optional_number("top5"),
        loss=reader.optional_number("loss"),
        eval_samples=reader.integer("eval_samples"),
        params=reader.integer("params"),
        active_params=reader.number("active_params"),
        flops_per_image=reader.number("flops_per_image"),
        train_flops=reader.optional_number("train_flops"),
        images_per_second=reader.optional_number("images_per_second"),
        steps=reader.optional_integer("steps"),
        seed=reader.optional_integer("seed"),
        data=reader.value("data"),
        routing=_routing(reader.inner("routing")),
    )


def _name(folder: Path) -> str:
    """``RUN``, and for an evaluation inside a run's folder ``RUN/eval`` or ``RUN/eval/NAME``."""
    parts = folder.absolute().parts
    length = 2 if parts[-1] == "eval" else 3 if parts[-2:-1] == ("eval",) else 1
    return "/".join(parts[-length:])


def _routing(reader: _Reader) -> Routing | None:
    layers = tuple(map(_layer, reader.inner_list("layers")))
    return Routing(_figures(reader.inner("mean")), layers) if layers else None


def _layer(reader: _Reader) -> Layer:
    layer = Layer(
        layer=reader.text("layer"),
        figures=_figures(reader),
        load=tuple(reader.numbers("load")),
        experts_per_token=tuple(int(count) for count in reader.numbers("experts_per_token")),
    )
    bins, experts = len(layer.experts_per_token), len(layer.load)
    if experts == 0 or bins != experts + 1:
        allowed = f"one more than load's {experts} experts"
        raise ValueError(f"{reader.where}: experts_per_token has {bins} counts; allowed: {allowed}")
    return layer


def _figures(reader: _Reader) -> Figures:
    return Figures(**{field.name: reader.number(field.name) for field in fields(Figures)})


class _Reader:
    """Takes typed values out of a mapping; an error names the file, the key and what to do."""

    def __init__(self, mapping: object, where: str):
        if not isinstance(mapping, Mapping):
            raise ValueError(f"{where} is {_brief(mapping)}; allowed: a mapping of keys to values")
        self.mapping, self.where = mapping, where

    def value(self, key: str) -> Any:
        if key not in self.mapping:
            raise ValueError(f"{self.where}: key {key!r} is missing; evaluate the run again with vmoe eval")
        return self.mapping[key]

    def text(self, key: str) -> str:
        value = self.value(key)
        return value if isinstance(value, str) else self._refuse(key, "a string")

    def number(self, key: str) -> float:
        value = self.value(key)
        return float(value) if _is_number(value) else self._refuse(key, "a number")

    def integer(self, key: str) -> int:
        value = self.value(key)
        return value if _is_number(value) and isinstance(value, int) else self._refuse(key, "a whole number")

    def optional_number(self, key: str) -> float | None:
        return None if self.value(key) is None else self.number(key)

    def optional_integer(self, key: str) -> int | None:
        return None if self.value(key) is None else self.integer(key)

    def numbers(self, key: str) -> list[float]:
        value = self.value(key)
        valid = isinstance(value, list | tuple) and all(_is_number(item) and math.isfinite(item) for item in value)
        return list(value) if valid else self._refuse(key, "a list of finite numbers")

    def inner(self, key: str) -> _Reader:
        return _Reader(self.value(key), f"{self.where}: {key}")

    def inner_list(self, key: str) -> list[_Reader]:
        value = self.value(key)
        if not isinstance(value, list | tuple):
            self._refuse(key, "a list")
        return [_Reader(item, f"{self.where}: {key}[{i}]") for i, item in enumerate(value)]

    def _refuse(self, key: str, allowed: str) -> Any:
        raise ValueError(f"{self.where}: {key} is {_brief(self.mapping[key])}; allowed: {allowed}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
