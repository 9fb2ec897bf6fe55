"""How a run went: `metrics.jsonl`, line by line, as immutable values.

A line is a JSON mapping with ``kind`` (train or evaluation), ``step``, ``epoch``, numbers under names of their own, and
with MoE layers ``layers`` (what each layer's experts served, in integers) and ``changed`` (in evaluations: the share of
the probe's tokens whose experts differ from those of the evaluation before, by layer).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vmoe.report.reader import MOST, Reader
from vmoe.untrusted import read_file

METRICS = "metrics.jsonl"
LARGEST = 2**29  # bytes; 100,000 lines of 12 layers with 64 experts have 0.4 billion
MOST_NAMES = 500  # of values, and of layers, in a line


@dataclass(frozen=True)
class Served:
    """What a layer's experts served. tokens: how many passed the layer. pairs: active ones, of each expert."""

    tokens: int
    pairs: tuple[int, ...]

    @property
    def load(self) -> tuple[float, ...]:
        """Each expert's share of the pairs; 0 where there is none."""
        total = sum(self.pairs) or 1
        return tuple(count / total for count in self.pairs)

    @property
    def density(self) -> float:
        """Active pairs over all pairs."""
        return sum(self.pairs) / max(self.tokens * len(self.pairs), 1)

    @property
    def entropy(self) -> float:
        """Of the load, over ln E; 0 for a single expert."""
        scale = math.log(len(self.pairs)) if len(self.pairs) > 1 else math.inf
        return -sum(share * math.log(share) for share in self.load if share > 0) / scale


@dataclass(frozen=True)
class Moment:
    """A line. values: its numbers, by their names; those of ``routing`` as ``routing.NAME``.

    layers: what experts served, by the layer's name; of a training line since the line before. changed: see above.
    """

    step: int
    epoch: float
    values: Mapping[str, float]
    layers: Mapping[str, Served] = field(default_factory=dict)
    changed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Metrics:
    """Moments in the order of their steps. problems: what of the file could not be read, for people; mostly nothing."""

    train: tuple[Moment, ...] = ()
    evaluations: tuple[Moment, ...] = ()
    problems: tuple[str, ...] = ()


def read_metrics(path: Path) -> Metrics:
    """Read the file. What is missing or damaged is left out and said so under `problems`; nothing is raised."""
    try:
        lines = read_file(path, LARGEST).decode("utf-8", errors="replace").split("\n")
    except OSError as error:
        return Metrics(problems=(f"{path} cannot be read: {error.strerror or error}",))
    found: dict[str, dict[int, Moment]] = {"train": {}, "evaluation": {}}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            reader = Reader(json.loads(line), f"{path}: line {number}")
            kind = reader.text("kind")
            if kind in found:
                moment = _moment(reader)
                found[kind][moment.step] = moment
        except (ValueError, OverflowError, RecursionError) as error:
            where = "" if str(error).startswith(str(path)) else f"{path}: line {number}: "
            problems.append(f"{where}{error}")
    moments = {kind: tuple(by_step[step] for step in sorted(by_step)) for kind, by_step in found.items()}
    return Metrics(moments["train"], moments["evaluation"], tuple(problems))


def _moment(reader: Reader) -> Moment:
    content = reader.mapping
    for part in (content, content.get("layers"), content.get("routing"), content.get("changed")):
        if isinstance(part, Mapping) and len(part) > MOST_NAMES:
            raise ValueError(f"{reader.where}: it has {len(part):,} names; allowed: {MOST_NAMES}")
    if not 0 <= reader.integer("step") < 2**53:
        raise ValueError(f"{reader.where}: step is {reader.integer('step'):g}; allowed: 0 to 2^53")
    routing = reader.inner("routing").mapping if content.get("routing") else {}
    named = {**content, **{f"routing.{key}": value for key, value in routing.items()}}
    values = {key: float(value) for key, value in named.items() if _is_finite(value) and key not in ("step", "epoch")}
    layers = reader.inner("layers") if content.get("layers") else None
    changed = reader.inner("changed") if content.get("changed") else None
    return Moment(
        step=reader.integer("step"),
        epoch=reader.number("epoch"),
        values=values,
        layers={} if layers is None else {name: _served(layers.inner(name)) for name in layers.mapping},
        changed={} if changed is None else {name: changed.number(name) for name in changed.mapping},
    )


def _served(reader: Reader) -> Served:
    return Served(reader.integer("tokens"), tuple(int(count) for count in reader.numbers("pairs")))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST
