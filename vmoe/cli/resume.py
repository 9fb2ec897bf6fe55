"""Going on with a run: whether to, from which checkpoint, and on how many processes."""

from __future__ import annotations

import os
from typing import Any

from vmoe.config import ConfigError, RunConfig
from vmoe.moe.collective import largest_over_processes
from vmoe.train.distributed import Processes
from vmoe.train.runfolder import RunFolder

from .flatten import flatten

# What a resumed run may change: where it is kept, how long the trial is, how it looks at itself and is kept, how its
# model lies on processes.
MAY_DIFFER = (
    *("output", "schedule.max_steps", "data.workers", "data.timeout", "train.resume", "train.timeout"),
    *("train.log_every", "train.routing_every", "train.tensorboard", "train.wandb", "train.accumulate"),
    *("train.max_nonfinite", "train.spike_factor", "train.max_returns", "parallel.strategy", "parallel.experts"),
    *("checkpoint.every_steps", "checkpoint.keep_best", "checkpoint.keep_every"),
)
RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")  # how often a launcher has started this run again


def goes_on(config: RunConfig) -> bool:
    """Whether a run that the folder holds already is to go on: by the config, or since a launcher starts it again."""
    return config.train.resume == "auto" or any(int(os.environ.get(name, "0") or 0) > 0 for name in RESTARTS)


def check_alike(checkpoint: dict[str, Any] | None, processes: Processes) -> None:
    """Raise `ConfigError`, on all processes, unless each of them found a checkpoint of the same step, or none."""
    step = -1 if checkpoint is None else checkpoint["training"]["step"]
    latest, minus_earliest = largest_over_processes([step, -step], processes.device)
    if latest != -minus_earliest:
        raise ConfigError(
            f"processes found checkpoints of different steps, up to {latest}; this one {'none' if step < 0 else step}."
            " Allowed: an output folder that all of them see alike"
        )


def resumable(config: RunConfig, folder: RunFolder) -> dict[str, Any] | None:
    """The newest good checkpoint, to go on from, or None without any. Raises `ConfigError` if it is of another config,
    `ValueError` if there are some and all are damaged.
    """
    newest = folder.checkpoints.newest() if goes_on(config) else None
    if newest is None:
        return None
    checkpoint = newest[1]
    now, then = flatten(config.model_dump(mode="json")), flatten(checkpoint["config"])
    changed = [key for key in sorted({*now, *then}) if key not in MAY_DIFFER and now.get(key) != then.get(key)]
    if changed:
        listed = "; ".join(f"{key} is {now.get(key)!r}, was {then.get(key)!r}" for key in changed)
        raise ConfigError(
            f"cannot go on with the run in {folder.path}: {listed}. Allowed to differ: {', '.join(MAY_DIFFER)}"
        )
    return checkpoint


def keep_batch(config: RunConfig, checkpoint: dict[str, Any], processes: Processes) -> RunConfig:
    """The config with the accumulation that keeps the batch of a step the same on as many processes as there are now,
    in micro-batches no larger than before, which may be all that fits.

    Raises `ConfigError` where the batch cannot be shared out so, or the checkpoint's own figures are none.
    """
    before, now, batch = checkpoint["training"].get("processes"), processes.world, config.data.batch_size
    if before is None or before == now:
        return config
    then = flatten(checkpoint["config"]).get("train.accumulate")
    for name, value in {"training.processes": before, "train.accumulate": then}.items():
        if type(value) is not int or not 0 < value <= batch:
            raise ConfigError(
                f"cannot go on with the run in {config.output}: {name} of its checkpoint is {value!r:.60}; allowed: a"
                f" whole number from 1 to data.batch_size {batch}"
            )
    largest = batch // (before * then)
    possible = (count for count in range(1, batch // now + 1) if batch % (now * count) == 0)
    accumulate = next((count for count in possible if batch // (now * count) <= largest), None)
    if accumulate is None:
        allowed = ", ".join(str(count) for count in range(1, batch + 1) if batch % count == 0)
        raise ConfigError(
            f"the run in {config.output} goes on with {now} processes in place of {before}, and its steps of"
            f" data.batch_size {batch} cannot be shared out evenly; allowed: {allowed} processes"
        )
    if processes.first:
        print(
            f"{now} process{'es' * (now > 1)} in place of {before}: train.accumulate {accumulate}, so that a step stays"
            f" {batch} samples, {batch // (now * accumulate)} at a time on a process",
            flush=True,
        )
    return config.model_copy(update={"train": config.train.model_copy(update={"accumulate": accumulate})})
