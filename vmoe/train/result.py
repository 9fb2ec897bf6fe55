"""result.json: what a run or an evaluation came to. Its keys are stable; docs/result.md describes them."""

from __future__ import annotations

import dataclasses
from statistics import fmean
from typing import Any

from vmoe.config import RunConfig
from vmoe.moe import mean_figures

from .cost import Cost
from .evaluate import Evaluation
from .task import Scores, Task

FORMAT = 1


def describe_result(
    evaluation: Evaluation,
    cost: Cost,
    config: RunConfig,
    task: Task,
    *,
    steps: int | None,
    train_flops: int | None,
    units_per_second: float,
    utilisation: float | None,
) -> dict[str, Any]:
    """The record that result.json holds. Active parameters and FLOPs follow from the density that was observed, and are
    None where it was not.

    steps, train_flops: of the training; None where they are not known. utilisation: its `model_flops_utilisation`; None
    for an evaluation alone.
    """
    observed = len(evaluation.routing) == len(cost.layers)
    density = {name: figures.compute_density for name, figures in evaluation.routing.items()}
    changed = evaluation.changed
    layers = [
        {"layer": name, **dataclasses.asdict(figures), "changed": changed.get(name)}
        for name, figures in evaluation.routing.items()
    ]
    mean = {**mean_figures(evaluation.routing), "changed": fmean(changed.values()) if changed else None}
    return {
        "format": FORMAT,
        "task": config.task,
        "gate": config.moe.gate.kind,
        "model": config.model.name,
        "data": config.data.val,
        "seed": config.seed,
        "steps": steps,
        **evaluation.scores.figures,
        "params": cost.params,
        "active_params": round(cost.active_params(density)) if observed else None,
        f"flops_per_{task.UNIT}": round(cost.flops_per_unit(density)) if observed else None,
        "train_flops": train_flops,
        f"{task.UNIT}s_per_second": units_per_second,
        "model_flops_utilisation": utilisation,
        "routing": {"mean": mean if layers else None, "layers": layers},
    }


def headline(result: dict[str, Any], scores: Scores) -> str:
    """One line for people."""
    text = f"{result['gate']}: {scores.text}"
    if mean := result["routing"]["mean"]:
        text += f", routing entropy {mean['entropy']:.3f}, density {mean['density']:.3f}, dead {mean['dead']:.1%}"
    return text
