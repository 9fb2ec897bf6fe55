"""A trained checkpoint, opened to be evaluated: what `vmoe eval` and its sweep of θ share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vmoe.api import build_stored
from vmoe.config import ConfigError, RunConfig, override_config
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.cost import Cost, measure_cost
from vmoe.train.distributed import Processes
from vmoe.train.evaluate import Evaluation, evaluate
from vmoe.train.loaders import Loader
from vmoe.train.precision import choose_precision
from vmoe.train.result import describe_result, headline
from vmoe.train.task import Task

from .outcome import Outcome
from .tasks import assembly_of


class Prepared(NamedTuple):
    """A checkpoint read, the config it is evaluated by, and where what comes of it goes."""

    path: Path
    stored: dict[str, Any]
    config: RunConfig
    folder: Path


def prepare(path: Path, options: argparse.Namespace) -> Prepared:
    """Read a checkpoint and settle how it is evaluated, so that all are known to be good before the first one runs."""
    stored = read_checkpoint(path)
    as_trained = override_config(stored["config"], [], str(path))
    overrides = list(options.set)
    if options.data is not None:
        overrides += assembly_of(as_trained).overrides_for(options.data)
    config = override_config(stored["config"], overrides, str(path))
    for section in ("task", "model", "moe"):
        if getattr(config, section) != getattr(as_trained, section):
            raise ConfigError(f"--set changes {section}, but {path} says what the model is; allowed: other sections")
    folder = default_folder(path, config, swept=options.theta is not None)
    return Prepared(path, stored, config, Path(options.output) if options.output else folder)


def run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in, or the folder beside it where it lies elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def default_folder(checkpoint: Path, config: RunConfig, *, swept: bool) -> Path:
    """RUN/eval/CHECKPOINT-DATA, or -DATA-theta, for RUN/checkpoints/CHECKPOINT.pt, else beside the checkpoint."""
    return run_of(checkpoint) / "eval" / f"{checkpoint.stem}-{Path(config.data.val).stem}{'-theta' if swept else ''}"


@dataclass(frozen=True)
class Subject:
    """The weights that a run evaluated, on their device, and data.val of the config; for any number of evaluations."""

    prepared: Prepared
    processes: Processes
    loader: Loader
    model: nn.Module
    task: Task
    cost: Cost
    precision: torch.dtype

    def evaluate(self, *, routing: bool = True) -> Outcome:
        """Evaluate the model as it is now. routing: whether to count it."""
        return self.outcome_of(self.evaluation(routing=routing))

    def evaluation(self, *, routing: bool = True) -> Evaluation:
        """What the evaluation itself came to."""
        return evaluate(self.model, self.loader, self.task, self.processes, self.precision, routing=routing)

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
    config, entry = prepared.config, prepared.stored["data"]
    assembly = assembly_of(config)
    loader = assembly.open_evaluation(entry, processes)
    model = build_stored(prepared.stored, str(prepared.path)).to(processes.device)
    task = assembly.task(entry, loader, processes.device)
    precision = choose_precision(config.train.precision, processes.device)
    return Subject(prepared, processes, loader, model, task, measure_cost(model, task), precision)
