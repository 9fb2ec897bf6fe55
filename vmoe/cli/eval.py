"""`vmoe eval`: a checkpoint in, a result.json out."""

from __future__ import annotations

import argparse
from pathlib import Path

from vmoe.api import load
from vmoe.config import RunConfig, override_config
from vmoe.data import Normalize, open_evaluation
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.cost import measure_cost
from vmoe.train.distributed import Processes, start_processes
from vmoe.train.evaluate import evaluate
from vmoe.train.result import describe_result
from vmoe.train.state import PRECISIONS

from .outcome import announce


def run(options: argparse.Namespace) -> None:
    checkpoint = Path(options.checkpoint)
    stored = read_checkpoint(checkpoint)
    overrides = list(options.overrides)
    if options.data is not None:
        loader = "folder" if Path(options.data).is_dir() else "ffcv"
        overrides += [f"data.val={options.data}", *([] if options.data == "digits" else [f"data.loader={loader}"])]
    config = override_config(stored["config"], overrides, str(checkpoint))
    folder = Path(options.output) if options.output else default_folder(checkpoint, config)
    with start_processes(config.train.device) as processes:
        evaluate_checkpoint(checkpoint, stored, config, folder, processes)


def evaluate_checkpoint(path: Path, stored: dict, config: RunConfig, folder: Path, processes: Processes) -> None:
    """Evaluate the weights that the run evaluated, on data.val of the config."""
    loader = open_evaluation(config.data, classes=tuple(stored["data"]["classes"]), processes=processes)
    model = load(path).to(processes.device)
    prepare = Normalize(config.data.mean, config.data.std).to(processes.device)
    cost = measure_cost(model, config.data.image_size)
    evaluation = evaluate(model, loader, prepare, processes, PRECISIONS[config.train.precision])
    result = describe_result(
        evaluation,
        cost,
        gate=config.moe.gate.kind,
        model=config.model.name,
        data=config.data.val,
        seed=config.seed,
        steps=stored["training"]["step"],
        train_flops=stored["training"]["train_flops"],
        images_per_second=evaluation.images_per_second,
    )
    if processes.first:
        announce(result, folder)


def default_folder(checkpoint: Path, config: RunConfig) -> Path:
    """RUN/eval/CHECKPOINT-DATA for RUN/checkpoints/CHECKPOINT.pt, else beside the checkpoint."""
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return run / "eval" / f"{checkpoint.stem}-{Path(config.data.val).stem}"
