"""Everything that a run folder holds, each part read by itself, so that what is damaged takes nothing else with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vmoe.report.classes import CLASSES, ClassAccuracy, read_classes
from vmoe.report.config import CONFIG, Config, read_config
from vmoe.report.counts import COUNTS, Counts, LayerCounts, read_counts
from vmoe.report.metrics import METRICS, Metrics, read_metrics
from vmoe.report.reader import read_json
from vmoe.report.routing_maps import ROUTING_MAPS, ImageRouting, read_routing_maps
from vmoe.report.runs import RESULT, Run, read_run
from vmoe.report.tasks import TASKS, Task

ENVIRONMENT = "environment.json"
MOST_PROBLEMS = 5  # of one file, one by one
T = TypeVar("T")


@dataclass(frozen=True)
class RunFiles:
    """A run, or an evaluation inside one. Parts that are missing or damaged are None, and `problems` says why.

    name: ``RUN`` or ``RUN/eval/NAME``. home: the folder of the run, from which an evaluation inside it has `metrics`,
    `config` and `environment`. problems: a sentence for people each, which names the file and what would make it.
    """

    folder: Path
    home: Path
    name: str
    run: Run | None
    metrics: Metrics | None
    counts: Counts | None
    maps: ImageRouting | None
    classes: tuple[ClassAccuracy, ...] | None
    config: Config | None
    environment: Mapping[str, Any] | None
    problems: tuple[str, ...]

    @property
    def gate(self) -> str | None:
        """The kind of its gate, where the result or the config says it."""
        return gate_of(self.run, self.config)

    @property
    def task(self) -> Task | None:
        return task_of(self.run, self.config)

    @property
    def routes(self) -> bool:
        """Whether its model has experts to choose from, as far as its files tell."""
        return self.gate != "dense"


def read_folder(folder: str | Path) -> RunFiles:
    """Read a run folder, or a folder of `vmoe eval`. Raises what `check_folder` does, whatever the files hold."""
    folder = Path(folder)
    check_folder(folder)
    home = home_of(folder)
    problems: list[str] = []
    config = _part(home / CONFIG, read_config, "vmoe train writes it", problems)
    environment = _part(home / ENVIRONMENT, _read_mapping, "vmoe train writes it", problems)
    metrics = _part(home / METRICS, read_metrics, "vmoe train writes it, and nothing else can", problems)
    run = _part(folder / RESULT, lambda path: read_run(path.parent), _remedy(folder, home), problems)
    routes, task = gate_of(run, config) != "dense", task_of(run, config)
    counts = maps = None
    if routes or (folder / COUNTS).exists():
        counts = _part(folder / COUNTS, _read_counts, _remedy(folder, home), problems)
    if (routes and task is not None and task.maps) or (folder / ROUTING_MAPS).exists():
        maps = _part(folder / ROUTING_MAPS, read_routing_maps, _remedy(folder, home), problems)
    classes = None
    if (folder / CLASSES).exists():  # text has none, nor has a run from before there were any
        classes = _part(folder / CLASSES, read_classes, _remedy(folder, home), problems)
    if config is not None and not config.values:
        problems.append(f"{home / CONFIG} holds no keys; it is shown as it is, and what follows from it is left out")
    if metrics is not None:
        problems += _few(metrics.problems)
    problems += _contradictions(run, counts, folder, routes=routes)
    name = str(folder.absolute().relative_to(home.absolute().parent))
    return RunFiles(folder, home, name, run, metrics, counts, maps, classes, config, environment, tuple(problems))


def check_folder(folder: Path) -> None:
    """Raise `FileNotFoundError` if there is no such folder, or nothing of a run in it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; name the `output` folder of a run")
    names = (RESULT, COUNTS, ROUTING_MAPS, METRICS, CONFIG, ENVIRONMENT)
    if not any((folder / name).exists() for name in names):
        raise FileNotFoundError(f"{folder} holds nothing of a run; allowed: a folder with any of {', '.join(names)}")


def home_of(folder: Path) -> Path:
    """The run folder of ``RUN/eval`` and ``RUN/eval/NAME``, unless these hold a run's own files; else the folder."""
    if any((folder / name).exists() for name in (CONFIG, ENVIRONMENT, METRICS)):
        return folder
    named = folder if len(folder.parts) > 1 else folder.absolute()
    names = folder.absolute().parts
    if names[-2:-1] == ("eval",):
        return named.parent.parent
    return named.parent if names[-1:] == ("eval",) else folder


def gate_of(run: Run | None, config: Config | None) -> str | None:
    if run is not None:
        return run.gate
    gate = config.value("moe", "gate") if config is not None else None
    kind = gate.get("kind") if isinstance(gate, Mapping) else gate
    return kind if isinstance(kind, str) else None


def task_of(run: Run | None, config: Config | None) -> Task | None:
    if run is not None:
        return run.task
    name = config.value("task") if config is not None else None
    return TASKS.get(name) if isinstance(name, str) else None


def _part(path: Path, read: Callable[[Path], T], remedy: str, problems: list[str]) -> T | None:
    """What `read` makes of a file; None, and a problem more, where it is missing or damaged."""
    try:
        if not path.exists():
            problems.append(f"{path} is missing: {remedy}.")
            return None
        return read(path)
    except Exception as error:  # a damaged file can make a decoder raise anything, and the other parts still stand
        message = " ".join(str(error).split()) or type(error).__name__
        told = message if str(path) in message else f"{path} cannot be read ({message}): {remedy}"
        problems.append(f"{told.rstrip('.')}.")
        return None


def _remedy(folder: Path, home: Path) -> str:
    """What would make the files of an evaluation."""
    checkpoint = home / "checkpoints" / "last.pt"
    if folder != home:
        return f"vmoe eval {checkpoint} --output {folder} writes it"
    if checkpoint.exists():
        return f"vmoe eval {checkpoint} writes one into {home / 'eval'}, whose folders vmoe report shows too"
    return "vmoe train writes it at the end of the run"


def _read_mapping(path: Path) -> Mapping[str, Any]:
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise ValueError("it holds no keys")
    return content


def _read_counts(path: Path) -> Counts:
    counts = read_counts(path)
    for name, layer in counts.layers.items():
        for wrong in _wrong_counts(layer, len(counts.labels)):
            raise ValueError(f"{path}: {name}: {wrong}; evaluate the run again with vmoe eval")
    return counts


def _wrong_counts(layer: LayerCounts, labels: int) -> Iterator[str]:
    """Arrays that are not what `LayerCounts` says they are."""
    experts, positions = layer.pairs.size, layer.tokens_by_position.size
    allowed = {
        **{"tokens": (), "rows": (), "token_entropy": (), "pairs": (experts,), "mass": (experts,)},
        **{"tokens_by_experts": (experts + 1,), "both": (experts, experts), "pairs_by_label": (labels, experts)},
        **{"pairs_by_position": (positions, experts), "tokens_by_position": (positions,)},
        "grid": (3,) if layer.grid.size else (0,),
    }
    for one in fields(layer):
        array = getattr(layer, one.name)
        if array.dtype.kind not in "iu" or array.shape != allowed[one.name] or (array < 0).any():
            yield f"{one.name} is {array.dtype} of shape {array.shape}; allowed: whole numbers of {allowed[one.name]}"
    if layer.grid.shape == (3,) and layer.grid[0] + layer.grid[1] * layer.grid[2] != positions:
        yield f"grid is {layer.grid.tolist()} for {positions} positions; allowed: prefix + rows · columns of them"


def _few(problems: tuple[str, ...]) -> list[str]:
    left = len(problems) - MOST_PROBLEMS
    further = [f"{METRICS}: {left:,} lines more could not be read."] if left > 0 else []
    return [*(f"{problem.rstrip('.')}; the line is left out." for problem in problems[:MOST_PROBLEMS]), *further]


def _contradictions(run: Run | None, counts: Counts | None, folder: Path, *, routes: bool) -> Iterator[str]:
    """What parts that can each be read say against each other, or against any run."""
    if run is None:
        return
    if run.routing is None:
        if routes:
            yield f"{folder / RESULT} holds no routing: vmoe eval without --no-routing counts it."
        return
    for layer in run.routing.layers:
        numbers = {name: value for name, value in vars(layer.figures).items() if value is not None}
        if wrong := [name for name, value in numbers.items() if not np.isfinite(value)]:
            where = f"{folder / RESULT}: {layer.layer}"
            yield f"{where}: {', '.join(wrong)} is no number; evaluate the run again with vmoe eval."
    if counts is None:
        return
    told = {layer.layer: list(layer.experts_per_token) for layer in run.routing.layers}
    if told != {name: layer.tokens_by_experts.tolist() for name, layer in counts.layers.items()}:
        yield (
            f"{folder / COUNTS} and {folder / RESULT} are of different evaluations: their layers or counts differ;"
            " vmoe eval writes both anew."
        )
