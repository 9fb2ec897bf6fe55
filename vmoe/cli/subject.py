"""A trained checkpoint, opened to be evaluated: what all of `vmoe eval` shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vmoe.api import build_stored
from vmoe.config import ConfigError, RunConfig, override_config
from vmoe.train.checkpoint import HUB
from vmoe.train.cost import Cost, measure_cost
from vmoe.train.distributed import Processes
from vmoe.train.evaluate import Evaluation, evaluate
from vmoe.train.loaders import Loader
from vmoe.train.precision import choose_precision, set_float32_products
from vmoe.train.result import describe_result, headline
from vmoe.train.task import Task

from .outcome import Outcome
from .pretrained import FOLDER, PREFIX, read_pretrained
from .stored import read_stored
from .tasks import Assembly, Judge, Judging, assembly_of


class Prepared(NamedTuple):
    """A checkpoint read, the config it is evaluated by, how it is judged, and where what comes of it goes.

    name: the checkpoint's file, or ``timm:NAME``.
    """

    name: str
    stored: dict[str, Any]
    config: RunConfig
    judging: Judging
    folder: Path


def read_source(source: str, *, has_data: bool) -> dict[str, Any]:
    """The checkpoint of a file, or of timm's pretrained model of that name. has_data: whether data are given beside it.

    Raises `ValueError` and `OSError`.
    """
    if not source.startswith(PREFIX):
        return read_stored(source)
    if not has_data:
        raise ConfigError(f"{source} is a model without data of its own; allowed: --data FILE or FOLDER beside it")
    return read_pretrained(source)


def prepare(
    source: str, stored: dict[str, Any], data: str | None, overrides: Sequence[str], judging: Judging, ending: str = ""
) -> Prepared:
    """Settle how a checkpoint is evaluated, so that all are known to be good before the first one runs.

    data: in place of data.val. overrides: further keys of its config. ending: of the folder's name.
    """
    as_trained = override_config(stored["config"], [], source)
    overrides = list(overrides)
    if data is not None:
        overrides += assembly_of(as_trained).overrides_for(data)
    config = override_config(stored["config"], overrides, source)
    for section in ("task", "model", "moe"):
        if getattr(config, section) != getattr(as_trained, section):
            raise ConfigError(f"--set changes {section}, but {source} says what the model is; allowed: other sections")
    assembly_of(config).check_judging(judging, stored["data"], source)
    return Prepared(source, stored, config, judging, default_folder(source, config, judging, ending))


def run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in, or the folder beside it where it lies elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def default_folder(source: str, config: RunConfig, judging: Judging, ending: str) -> Path:
    """RUN/eval/CHECKPOINT-DATA for RUN/checkpoints/CHECKPOINT.pt, else beside the checkpoint; what makes the result
    another one is in the name too.
    """
    path = Path(source)
    if source.startswith(PREFIX):
        path = FOLDER / source.removeprefix(PREFIX) / "pretrained"
    elif source.startswith(HUB):
        path = Path("runs/hub") / source.removeprefix(HUB) / "model"
    restricted = "-subset" if judging.classes == "subset" else ""
    flipped = "-flip" if judging.flip else ""
    return run_of(path) / "eval" / f"{path.stem}-{Path(config.data.val).stem}{restricted}{flipped}{ending}"


@dataclass(frozen=True)
class Subject:
    """The weights that a run evaluated, on their device, and data.val of the config; for any number of evaluations."""

    prepared: Prepared
    processes: Processes
    loader: Loader
    model: nn.Module
    task: Task
    judge: Judge
    cost: Cost
    precision: torch.dtype

    @property
    def assembly(self) -> Assembly[Any]:
        return assembly_of(self.prepared.config)

    def evaluate(self, *, routing: bool = True) -> Outcome:
        """Evaluate the model as it is now. routing: whether to count it."""
        return self.outcome_of(self.evaluation(routing=routing))

    def evaluation(self, *, routing: bool = True) -> Evaluation:
        """What the evaluation itself came to."""
        return evaluate(
            self.model,
            self.loader,
            self.task,
            self.processes,
            self.precision,
            routing=routing,
            scorer=self.judge.scorer(),
            mirror=self.judge.mirror,
        )

    def outcome_of(self, evaluation: Evaluation) -> Outcome:
        """The record of an evaluation."""
        training = self.prepared.stored["training"]
        result = describe_result(
            evaluation,
            self.cost,
            self.prepared.config,
            self.task,
            steps=training["step"],
            train_flops=training["train_flops"],
            units_per_second=evaluation.units_per_second,
            utilisation=None,
        )
        return Outcome(result, headline(result, evaluation.scores))


def open_subject(prepared: Prepared, processes: Processes) -> Subject:
    """Open the data and build the model. Raises `ValueError` for data that the model cannot be evaluated on."""
    config, entry, judging = prepared.config, prepared.stored["data"], prepared.judging
    assembly = assembly_of(config)
    loader = assembly.open_evaluation(entry, processes, judging)
    model = build_stored(prepared.stored, prepared.name).to(processes.device)
    task = assembly.task(entry, loader, processes.device)
    judge = assembly.judge(judging, task, loader, processes.device)
    set_float32_products(config.train.precision, processes.device)
    precision = choose_precision(config.train.precision, processes.device)
    return Subject(prepared, processes, loader, model, task, judge, measure_cost(model, task), precision)
