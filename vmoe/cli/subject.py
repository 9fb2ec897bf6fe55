"""A trained checkpoint, opened to be evaluated: what `vmoe eval` and its sweep of θ share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vmoe.api import build_stored
from vmoe.config import DIGITS, ConfigError, RunConfig, override_config
from vmoe.data import Loader, Normalize, open_evaluation
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.cost import Cost, measure_cost
from vmoe.train.distributed import Processes
from vmoe.train.evaluate import evaluate
from vmoe.train.precision import choose_precision
from vmoe.train.result import describe_result


class Prepared(NamedTuple):
    """A checkpoint read, the config it is evaluated by, and where what comes of it goes."""

    path: Path
    stored: dict[str, Any]
    config: RunConfig
    folder: Path


def prepare(path: Path, options: argparse.Namespace) -> Prepared:
    """Read a checkpoint and settle how it is evaluated, so that all are known to be good before the first one runs."""
    stored = read_checkpoint(path)
    overrides = list(options.set)
    if options.data is not None:
        overrides.append(f"data.val={options.data}")
        if options.data != DIGITS:
            overrides.append(f"data.loader={'folder' if Path(options.data).is_dir() else 'ffcv'}")
    config = override_config(stored["config"], overrides, str(path))
    as_trained = override_config(stored["config"], [], str(path))
    for section in ("model", "moe"):
        if getattr(config, section) != getattr(as_trained, section):
            raise ConfigError(f"--set changes {section}, but {path} says what the model is; allowed: other sections")
    folder = default_folder(path, config, swept=options.theta is not None)
    return Prepared(path, stored, config, Path(options.output) if options.output else folder)


def default_folder(checkpoint: Path, config: RunConfig, *, swept: bool) -> Path:
    """RUN/eval/CHECKPOINT-DATA, or -DATA-theta, for RUN/checkpoints/CHECKPOINT.pt, else beside the checkpoint."""
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return run / "eval" / f"{checkpoint.stem}-{Path(config.data.val).stem}{'-theta' if swept else ''}"


@dataclass(frozen=True)
class Subject:
    """The weights that the run evaluated, on their device, and data.val of the config; for any number of evaluations.

    normalize: from the loader's images to the model's input.
    """

    prepared: Prepared
    processes: Processes
    loader: Loader
    model: nn.Module
    normalize: nn.Module
    cost: Cost
    precision: torch.dtype

    def evaluate(self, *, routing: bool = True) -> dict[str, Any]:
        """Evaluate the model as it is now; returns what result.json holds. routing: whether to count it."""
        training = self.prepared.stored["training"]
        given = (self.model, self.loader, self.normalize, self.processes, self.precision)
        evaluation = evaluate(*given, routing=routing)
        return describe_result(
            evaluation,
            self.cost,
            self.prepared.config,
            steps=training["step"],
            train_flops=training["train_flops"],
            images_per_second=evaluation.images_per_second,
        )


def open_subject(prepared: Prepared, processes: Processes) -> Subject:
    """Open the data and build the model. Raises `ValueError` for data that the model cannot be evaluated on."""
    config = prepared.config
    loader = open_evaluation(config.data, classes=prepared.stored["data"]["classes"], processes=processes)
    model = build_stored(prepared.stored, str(prepared.path)).to(processes.device)
    return Subject(
        prepared,
        processes,
        loader,
        model,
        normalize=Normalize(config.data.mean, config.data.std).to(processes.device),
        cost=measure_cost(model, config.data.image_size),
        precision=choose_precision(config.train.precision, processes.device),
    )
