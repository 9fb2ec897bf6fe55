"""Made-up results for the tests of `vmoe.report`: the shape of a `result.json`, figures computed from loads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

RUN = {
    "format": 1,
    "loss": 1.25,
    "params": 5_717_416,
    "active_params": 5_717_416,
    "train_flops": 1.5e15,
    "steps": 100,
    "seed": 0,
}
IMAGES = {
    "model": "vit_tiny_patch16_224",
    "data": "digits",
    "top1": 71.5,
    "top5": 90.25,
    "eval_samples": 1000,
    "flops_per_image": 2.5e9,
    "images_per_second": 1234.5,
}
TEXT = {
    "task": "text",
    "model": "gpt2",
    "data": "wikitext",
    "perplexity": 24.75,
    "bits_per_byte": 1.0625,
    "word_perplexity": 37.5,
    "eval_tokens": 250_000,
    "flops_per_token": 2.5e8,
    "tokens_per_second": 54321.0,
    "model_flops_utilisation": 0.375,
}


def layer(name: str, load: list[float], k: int = 2, tokens: int = 10) -> dict[str, Any]:
    """A layer of which every token activates k experts."""
    experts = len(load)
    mean = 1 / experts
    return {
        "layer": name,
        "entropy": -sum(p * math.log(p) for p in load if p > 0) / math.log(experts),
        "entropy_min": math.log(k) / math.log(experts),
        "token_entropy": 0.5,
        "load_cv": math.sqrt(sum((p - mean) ** 2 for p in load) / experts) / mean,
        "load_max": max(load),
        "dead": load.count(0) / experts,
        "density": k / experts,
        "load": load,
        "experts_per_token": [tokens if i == k else 0 for i in range(experts + 1)],
        "gate_mass": load,
        "label_information": None,
        "label_information_share": None,
    }


def result(gate: str = "topk", loads: list[list[float]] | None = None, **changes: Any) -> dict[str, Any]:
    """A result of images, one layer per load, in every second block; the defaults are 4 experts of uneven load."""
    routing: dict[str, Any] = {"mean": None, "layers": []}
    if gate != "dense":
        loads = [[0.5, 0.25, 0.25, 0.0]] if loads is None else loads
        layers = [layer(f"blocks.{2 * i + 1}.mlp", load) for i, load in enumerate(loads)]
        numbers = [key for key, value in layers[0].items() if isinstance(value, float)]
        mean = {key: sum(one[key] for one in layers) / len(layers) for key in numbers}
        routing = {"mean": mean, "layers": layers}
    return {**RUN, **IMAGES, "gate": gate, "routing": routing, **changes}


def text_result(
    gate: str = "topk", loads: list[list[float]] | None = None, information: float | None = None, **changes: Any
) -> dict[str, Any]:
    """A result of text as `result` gives one of images. information: of the label, as a share, in every layer."""
    content = {key: value for key, value in result(gate, loads).items() if key not in IMAGES}
    if content["routing"]["mean"] is not None:
        for figures in (content["routing"]["mean"], *content["routing"]["layers"]):
            figures["label_information_share"] = information
    return {**content, **TEXT, **changes}


def write(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
