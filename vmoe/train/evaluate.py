"""Exact evaluation: every image counted once, on any number of processes, with its routing."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

import torch
from timm.task.evaluator import ClassificationEvaluator
from torch import nn

from vmoe.moe import RoutingFigures, RoutingStats, record
from vmoe.moe.collective import is_distributed, sum_over_processes

from .distributed import Processes
from .loaders import ImageLoader
from .precision import autocast
from .progress import Progress


@dataclass(frozen=True)
class Evaluation:
    """top1, top5: percent (top5 over as many classes as there are, if fewer). loss: mean cross-entropy.

    images_per_second: over all processes, loading included. routing: figures of each MoE layer, by its name.
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
) -> Evaluation:
    """Evaluate a model over everything that the loader's processes hold between them.

    prepare: from uint8 images to the model's input, on the device. precision: of autocast; float32 turns it off.
    Raises `RuntimeError` if the number of images counted is not the number the data set has.
    """
    was_training = model.training
    model.eval()
    evaluator = ClassificationEvaluator(processes.device)
    stats = RoutingStats(model, num_classes=len(loader.classes))
    start = time.perf_counter()
    with (
        Progress("evaluate", loader.samples, show=processes.first) as progress,
        closing(loader.epoch(0)) as batches,
        record(model) as routings,
    ):
        for images, labels in batches:
            labels = labels.to(processes.device, non_blocking=True)
            with autocast(processes.device, precision):
                logits = model(prepare(images.to(processes.device, non_blocking=True)))
            evaluator.update(logits, labels)
            stats.update(routings, labels)
            progress.advance(len(labels) * processes.world)
    model.train(was_training)
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
        routing=stats.figures(),
    )
