"""`vmoe eval`: checkpoints in, a result.json out for each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from vmoe.api import build_stored
from vmoe.config import DIGITS, RunConfig, override_config
from vmoe.data import Normalize, open_evaluation
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.cost import measure_cost
from vmoe.train.distributed import Processes, start_processes
from vmoe.train.evaluate import evaluate
from vmoe.train.precision import choose_precision
from vmoe.train.result import describe_result

from .outcome import announce


def run(options: argparse.Namespace) -> None:
    if options.output is not None and len(options.checkpoints) > 1:
        raise ValueError(f"--output is {options.output!r} for {len(options.checkpoints)} checkpoints; allowed: one")
    evaluations = [prepare(Path(path), options) for path in options.checkpoints]
    with start_processes(evaluations[0].config.train.device) as processes:
        for evaluation in evaluations:
            evaluate_checkpoint(evaluation, processes)


class Prepared(NamedTuple):
    """A checkpoint read, the config it is evaluated by, and where the result goes."""

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
    return Prepared(path, stored, config, Path(options.output) if options.output else default_folder(path, config))


def evaluate_checkpoint(prepared: Prepared, processes: Processes) -> None:
    """Evaluate the weights that the run evaluated, on data.val of the config."""
    config, training = prepared.config, prepared.stored["training"]
    loader = open_evaluation(config.data, classes=prepared.stored["data"]["classes"], processes=processes)
    model = build_stored(prepared.stored, str(prepared.path)).to(processes.device)
    normalize = Normalize(config.data.mean, config.data.std).to(processes.device)
    cost = measure_cost(model, config.data.image_size)
    precision = choose_precision(config.train.precision, processes.device)
    evaluation = evaluate(model, loader, normalize, processes, precision)
    result = describe_result(
        evaluation,
        cost,
        config,
        steps=training["step"],
        train_flops=training["train_flops"],
        images_per_second=evaluation.images_per_second,
    )
    if processes.first:
        announce(result, prepared.folder)


def default_folder(checkpoint: Path, config: RunConfig) -> Path:
    """RUN/eval/CHECKPOINT-DATA for RUN/checkpoints/CHECKPOINT.pt, else beside the checkpoint."""
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return run / "eval" / f"{checkpoint.stem}-{Path(config.data.val).stem}"
