"""result.json: what a run or an evaluation came to. Its keys are stable; docs/result.md describes them."""

from __future__ import annotations

import dataclasses
from typing import Any

from vmoe.config import RunConfig
from vmoe.moe import mean_figures

from .cost import Cost
from .evaluate import Evaluation

FORMAT = 1


def describe_result(
    evaluation: Evaluation,
    cost: Cost,
    config: RunConfig,
    *,
    steps: int,
    train_flops: int,
    images_per_second: float,
) -> dict[str, Any]:
    """The record that result.json holds. Active parameters and FLOPs follow from the density that was observed, and are
    None where it was not.
    """
    observed = len(evaluation.routing) == len(cost.layers)
    density = {name: figures.compute_density for name, figures in evaluation.routing.items()}
    layers = [{"layer": name, **dataclasses.asdict(figures)} for name, figures in evaluation.routing.items()]
    return {
        "format": FORMAT,
        "gate": config.moe.gate.kind,
        "model": config.model.name,
        "data": config.data.val,
        "seed": config.seed,
        "steps": steps,
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "loss": evaluation.loss,
        "eval_samples": evaluation.samples,
        "params": cost.params,
        "active_params": round(cost.active_params(density)) if observed else None,
        "flops_per_image": round(cost.flops_per_image(density)) if observed else None,
        "train_flops": train_flops,
        "images_per_second": images_per_second,
        "routing": {"mean": mean_figures(evaluation.routing) if layers else None, "layers": layers},
    }


def headline(result: dict[str, Any]) -> str:
    """One line for people."""
    text = f"{result['gate']}: top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} % of {result['eval_samples']}"
    if mean := result["routing"]["mean"]:
        text += f", routing entropy {mean['entropy']:.3f}, density {mean['density']:.3f}, dead {mean['dead']:.1%}"
    return text
