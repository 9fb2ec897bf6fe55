"""Exact evaluation: every image or token counted once, on any number of processes, with its routing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn

from vmoe.moe import Routing, RoutingFigures, RoutingStats, evaluating, record
from vmoe.moe.collective import largest_over_processes

from .agreement import agree, failure_of_all
from .distributed import Processes
from .interrupt import Interrupted, Interrupts
from .judging import mean_of_views
from .loaders import Batch, Loader
from .precision import autocast
from .progress import Progress
from .task import Scorer, Scores, Task


@dataclass(frozen=True)
class Evaluation:
    """units_per_second: over all processes, loading included. stats: counts of the routing over all processes, and
    routing: their figures of each MoE layer, by its name; None and empty where they were not asked for.
    changed: share of the probe's tokens whose experts are others than in the evaluation before, by layer; empty where
    there was none before.
    """

    scores: Scores
    units_per_second: float
    stats: RoutingStats | None
    routing: dict[str, RoutingFigures]
    changed: Mapping[str, float] = field(default_factory=dict)


def in_step(
    batches: Iterator[Batch], count: int, processes: Processes, interrupts: Interrupts | None
) -> Iterator[Batch | None]:
    """This process's batches, of which there are so many, and None while others still have some; before each of them
    all processes agree that every one has what it needs.

    Raises as `evaluate` does.
    """
    (rounds,) = largest_over_processes([count], processes.device)
    for _ in range(rounds):
        batch: Batch | None = None
        error: Exception | None = None
        try:
            batch = next(batches, None)
        except Exception as met:  # whatever it is, the other processes must not wait for this one
            error = met
        verdict = agree(processes, interrupt=0 if interrupts is None else interrupts.received, error=error)
        if verdict.interrupt is not None:  # which may be why reading failed
            raise Interrupted(verdict.interrupt)
        if verdict.failed:
            raise failure_of_all(processes, error)
        yield batch


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Loader,
    task: Task,
    processes: Processes,
    precision: torch.dtype,
    *,
    routing: bool = True,
    scorer: Scorer | None = None,
    mirror: Callable[[Tensor], Tensor] | None = None,
    batches: int | None = None,
    interrupts: Interrupts | None = None,
    together: bool = False,
) -> Evaluation:
    """Evaluate a model over everything that the loader's processes hold between them.

    precision: of autocast; float32 turns it off. routing: whether to count how tokens were routed; without it the
    layers keep no books at all. scorer: a new one that judges in place of the task's own. mirror: makes a second view
    of prepared inputs, whose probabilities are averaged with those of the first; routing is counted of the first alone.
    batches: so many of each process at most, for a look at the speed; None for all. interrupts: signals that end it.
    together: a forward is one of all processes, so that one that is out of data runs the task's sample while others
    have batches, and counts nothing of it.
    Raises `RuntimeError` if the number counted is not the number the data set has; on every process `Interrupted`, and
    the loader's error where one process met one (`OtherProcessError` on the others).
    """
    device = processes.device
    scorer = scorer or task.scorer()
    views = 1 if mirror is None else 2
    stats = RoutingStats(model, num_labels=task.num_labels, positions=True) if routing else None
    recording: AbstractContextManager[Mapping[str, Routing]] = record(model) if routing else nullcontext({})
    start = time.perf_counter()
    with (
        evaluating(model),
        Progress("evaluate", loader.units, task.SHORT, show=processes.first) as progress,
        closing(loader.epoch(0)) as epoch,
        recording as routings,
    ):
        count = len(loader) if batches is None else min(len(loader), batches)
        for batch in in_step(islice(epoch, batches), count, processes, interrupts):
            if batch is None:
                for _ in range(views if together else 0):
                    with autocast(device, precision):
                        task.forward(model, task.sample)
                continue
            inputs, targets = batch
            prepared = task.prepare(inputs.to(device, non_blocking=True))
            with autocast(device, precision):
                logits = task.forward(model, prepared)
            if stats is not None:
                labels, counted = task.routed_labels(inputs, targets)
                stats.update(
                    routings,
                    labels.to(device, non_blocking=True),
                    counted=None if counted is None else counted.to(device, non_blocking=True),
                )
            if mirror is not None:  # after the counting: the record is of the latest forward
                with autocast(device, precision):
                    logits = mean_of_views(logits, task.forward(model, mirror(prepared)))
            scorer.update(logits, targets.to(device, non_blocking=True))
            progress.advance(task.count(targets) * processes.world)
    if stats is not None:
        stats.all_reduce()
    scores = scorer.compute()
    if batches is None and scores.units != loader.units:
        raise RuntimeError(f"evaluation counted {scores.units} {task.UNIT}s of a data set of {loader.units}")
    seconds = time.perf_counter() - start
    return Evaluation(scores, scores.units / seconds, stats, {} if stats is None else stats.figures())
