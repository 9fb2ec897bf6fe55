"""Runs of one config are one row of a comparison, over their seeds; everything else is a row of its own."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmoe.report.config import CONFIG, read_config
from vmoe.report.runs import Run

SEED = "seed"
# Keys that change nothing of a result: where the run is kept, how its data are fetched, how it looks at itself.
CHANGE_NOTHING = frozenset(
    {
        *("output", "data.cache", "data.workers", "data.timeout", "train.resume", "train.peak_tflops"),
        *("train.log_every", "train.routing_every", "train.probe_samples", "train.tensorboard", "train.wandb"),
    }
)
FlatConfig = Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """A row of a comparison.

    label: what it is called beside the others. runs: of one config, each with a seed of its own, the smallest first; or
    a single run. config: flat, with values as the file writes them, without `SEED` and `CHANGE_NOTHING`; None where it
    cannot be read.
    """

    label: str
    runs: tuple[Run, ...]
    config: FlatConfig | None

    @property
    def first(self) -> Run:
        """The run that stands for the row where only one can be shown."""
        return self.runs[0]


@dataclass(frozen=True)
class Rows:
    """rows: in the order of their first runs. notes: what a reader should know of the grouping, a sentence each."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def rows_of(runs: Iterable[Run], *, each: bool = False) -> Rows:
    """Runs whose configs differ in nothing but the seed, and that were evaluated alike after as many steps, as one row.

    A run with the config and the seed of an earlier one, and a run without a readable config, are rows of their own,
    and a note says so. each: every run is a row of its own. Raises `ValueError` where there is no run.
    """
    runs = list(runs)
    if not runs:
        raise ValueError("nothing to compare: give at least one run")
    configs = [config_of(run) for run in runs]
    groups: dict[Hashable, list[int]] = {}
    duplicates, unknown = [], []
    for index, (run, config) in enumerate(zip(runs, configs, strict=True)):
        key: Hashable = index
        if config is None:
            unknown.append(index)
        elif not each and run.seed is not None:
            key = (frozenset(config.items()), _evaluated_as(run))
            if run.seed in [runs[other].seed for other in groups.get(key, [])]:
                key = index
                duplicates.append(index)
        groups.setdefault(key, []).append(index)

    members = [sorted(group, key=lambda index: runs[index].seed or 0) for group in groups.values()]
    labels = _labels([[runs[index] for index in group] for group in members])
    rows = [
        Row(label, tuple(runs[index] for index in group), configs[group[0]])
        for label, group in zip(labels, members, strict=True)
    ]
    label_of = {index: row.label for row, group in zip(rows, members, strict=True) for index in group}
    notes = []
    if duplicates:
        named = ", ".join(f"{label_of[index]} (seed {runs[index].seed})" for index in duplicates)
        notes.append(f"The same config and seed as a run before: {named}; not taken for a further seed.")
    if unknown and len(runs) > 1:
        named = ", ".join(label_of[index] for index in unknown)
        notes.append(f"No config.yaml that can be read: {named}; whether these are seeds of others is not known.")
    return Rows(tuple(rows), tuple(notes))


def labels_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """What each run is called beside the others: its name, or its folder where several have that name."""
    return _labels([[run] for run in runs])


def config_of(run: Run) -> FlatConfig | None:
    """The config that a run was trained with, as `Row` holds it; None where there is none that can be read."""
    from vmoe.report.run_files import home_of

    try:
        flat = flatten(read_config(home_of(run.folder) / CONFIG, typed=False).values)
    except (OSError, RecursionError):
        return None
    return {key: value for key, value in flat.items() if key != SEED and key not in CHANGE_NOTHING} or None


def flatten(config: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested mappings of text as one, with dotted keys; lists as YAML writes them in a line."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: _in_a_line(value)}
    return flat


def _in_a_line(value: object) -> str:
    return f"[{', '.join(map(_in_a_line, value))}]" if isinstance(value, list) else str(value)


def _evaluated_as(run: Run) -> Hashable:
    """What must be the same of two results beside the config: by which evaluation, on what, after how many steps."""
    from vmoe.report.run_files import home_of

    inside = run.folder.absolute().relative_to(home_of(run.folder).absolute())
    layers = None if run.routing is None else tuple((one.layer, len(one.load)) for one in run.routing.layers)
    return inside, run.task.name, run.gate, run.model, str(run.data), run.steps, layers


def _labels(groups: Sequence[Sequence[Run]]) -> tuple[str, ...]:
    """Of each group what the names of its runs share; where several groups share that, with as much of the folders
    before it as tells them apart.
    """
    names = labels = [_shared([run.name for run in group]) for group in groups]
    for further in range(1, 1 + max(len(run.folder.parts) for group in groups for run in group)):
        labels = [
            _shared([_with_parents(run, further) for run in group]) if labels.count(label) > 1 else label
            for label, group in zip(labels, groups, strict=True)
        ]
    alike = [name if labels.count(label) > 1 else label for name, label in zip(names, labels, strict=True)]
    return tuple(
        label if alike.count(label) == 1 else f"{label} ({alike[: index + 1].count(label)})"
        for index, label in enumerate(alike)
    )


def _with_parents(run: Run, further: int) -> str:
    """A run's name with so many folders before it, as far as its folder was given."""
    own, given = len(run.name.split("/")), run.folder.parts
    return run.name if len(given) <= own else str(Path(*given[-own - further :]))


def _shared(names: Sequence[str]) -> str:
    """``topk`` for ``topk-seed0`` and ``topk-seed1``: the parts that all have, without a `seed` before what differs.

    Names of which no part is the same go by the first one and the number of the others.
    """
    if len(set(names)) == 1:
        return names[0]
    parts = [re.split(r"([-_. /]+)", name) for name in names]
    kept: list[str] = []
    if len({len(part) for part in parts}) == 1:
        same = [len(set(at)) == 1 for at in zip(*parts, strict=True)]
        for at, part in list(enumerate(parts[0]))[::2]:
            names_the_seed = part in (SEED, "s") and not all(same[at : at + 3])
            if same[at] and not names_the_seed:
                kept += [parts[0][at - 1], part] if kept else [part]
    return "".join(kept) or f"{names[0]} and {len(names) - 1} more"
