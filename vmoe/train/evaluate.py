"""Exact evaluation: every image counted once, on any number of processes, with its routing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

import torch
from timm.task.evaluator import ClassificationEvaluator
from torch import nn

from vmoe.moe import Routing, RoutingFigures, RoutingStats, record
from vmoe.moe.collective import is_distributed, sum_over_processes

from .distributed import Processes
from .loaders import ImageLoader
from .precision import autocast
from .progress import Progress


@dataclass(frozen=True)
class Evaluation:
    """top1, top5: percent (top5 over as many classes as there are, if fewer). loss: mean cross-entropy.

    images_per_second: over all processes, loading included. routing: figures of each MoE layer, by its name; none where
    they were not asked for.
    """

    top1: float
    top5: float
    loss: float
    samples: int
    images_per_second: float
    routing: dict[str, RoutingFigures]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: ImageLoader,
    prepare: nn.Module,
    processes: Processes,
    precision: torch.dtype,
    *,
    routing: bool = True,
) -> Evaluation:
    """Evaluate a model over everything that the loader's processes hold between them.

    prepare: from uint8 images to the model's input, on the device. precision: of autocast; float32 turns it off.
    routing: whether to count how tokens were routed; without it the layers keep no books at all.
    Raises `RuntimeError` if the number of images counted is not the number the data set has.
    """
    was_training = model.training
    model.eval()
    evaluator = ClassificationEvaluator(processes.device)
    stats = RoutingStats(model, num_classes=len(loader.classes)) if routing else None
    recording: AbstractContextManager[Mapping[str, Routing]] = record(model) if routing else nullcontext({})
    start = time.perf_counter()
    with (
        Progress("evaluate", loader.samples, show=processes.first) as progress,
        closing(loader.epoch(0)) as batches,
        recording as routings,
    ):
        for images, labels in batches:
            labels = labels.to(processes.device, non_blocking=True)
            with autocast(processes.device, precision):
                logits = model(prepare(images.to(processes.device, non_blocking=True)))
            evaluator.update(logits, labels)
            if stats is not None:
                stats.update(routings, labels)
            progress.advance(len(labels) * processes.world)
    model.train(was_training)
    if stats is not None:
        stats.all_reduce()
    summary = evaluator.compute(distributed=is_distributed())
    samples = int(sum_over_processes(evaluator.counts[0].clone()))
    if samples != loader.samples:
        raise RuntimeError(f"evaluation counted {samples} images of a data set of {loader.samples}")
    seconds = time.perf_counter() - start
    return Evaluation(
        top1=summary["top1"],
        top5=summary["top5"],
        loss=summary["loss"],
        samples=samples,
        images_per_second=samples / seconds,
        routing={} if stats is None else stats.figures(),
    )
