"""Made-up run folders, whole: every file as a run leaves it, all of them counts of the same made-up decisions.

Shapes: N samples, P positions, E experts, C labels.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import IMAGES, RUN, TEXT

from vmoe.report.counts import COUNTS, Counts, LayerCounts, save_counts

FIXED_POINT = 2**24
ADAPTIVE = ("relu", "routing_free")


@dataclass(frozen=True)
class Size:
    """How large a made-up run is. grid: rows and columns of patches, after one prefix token."""

    layers: int = 2
    experts: int = 4
    labels: int = 5
    samples: int = 12
    grid: tuple[int, int] = (3, 4)
    length: int = 16
    lines: int = 12
    evaluations: int = 4


SMALL = Size()


def image_run(
    folder: Path, gate: str = "routing_free", size: Size = SMALL, seed: int = 0, *, maps: bool = True, **changes: Any
) -> Path:
    """A run of images. maps: with the routing of three. changes: other values of `result.json`. Returns the folder."""
    generator = np.random.default_rng(seed)
    positions = 1 + size.grid[0] * size.grid[1]
    labels_NP = np.repeat(generator.integers(0, size.labels, (size.samples, 1)), positions, axis=1)
    layers = decisions(generator, gate, labels_NP, size)
    names = tuple(f"class {number}" for number in range(size.labels))
    grid = np.array([1, *size.grid])
    result = {**RUN, **IMAGES, "eval_samples": size.samples, "seed": seed, **changes}
    scores = ("top1", "top5", "loss", "eval_samples")
    write_run(folder, gate, result, counts_of(layers, labels_NP, names, grid), scores, "images_per_second", size)
    if layers and maps:
        write_maps(folder, layers, labels_NP, names, size)
    return folder


def text_run(folder: Path, gate: str = "topk", size: Size = SMALL, seed: int = 0, **changes: Any) -> Path:
    """A run of text, as `image_run` makes one of images; labels are tokens, the first of them most frequent."""
    generator = np.random.default_rng(seed)
    frequency_C = 1 / np.arange(1, size.labels + 1)
    labels_NP = generator.choice(size.labels, (size.samples, size.length), p=frequency_C / frequency_C.sum())
    layers = decisions(generator, gate, labels_NP, size)
    names = tuple([" the", "\n", "ing"][number] if number < 3 else f" t{number}" for number in range(size.labels))
    result = {**RUN, **TEXT, "eval_tokens": labels_NP.size, "seed": seed, **changes}
    scores = ("perplexity", "bits_per_byte", "word_perplexity", "loss", "eval_tokens")
    counts = counts_of(layers, labels_NP, names, np.array([], dtype=np.int64), name="transformer.h.{}.mlp")
    write_run(folder, gate, result, counts, scores, "tokens_per_second", size)
    return folder


def decisions(generator: np.random.Generator, gate: str, labels_NP: np.ndarray, size: Size) -> list[np.ndarray]:
    """For each layer the weights (N, P, E), −1 where a pair is not active: by label, by position and by chance."""
    if gate == "dense":
        return []
    experts, found = np.arange(size.experts), []
    for layer in range(size.layers):
        favoured = np.cos(2 * np.pi * (labels_NP[..., None] * (layer + 1) / size.labels - experts / size.experts))
        placed = np.cos(2 * np.pi * (np.arange(labels_NP.shape[1])[:, None] / 7 - experts / size.experts))
        score = favoured + 0.7 * placed + generator.normal(size=favoured.shape) - 0.1 * experts
        if gate in ADAPTIVE:
            active = score >= np.quantile(score, 0.75)
        else:
            active = score >= np.sort(score, axis=-1)[..., [-min(2, size.experts)]]
        found.append(np.where(active, 1 / (1 + np.exp(-score)), -1.0))
    return found


def counts_of(
    layers: list[np.ndarray],
    labels_NP: np.ndarray,
    names: tuple[str, ...],
    grid: np.ndarray,
    name: str = "blocks.{}.mlp",
) -> Counts:
    """What an evaluation counts of these decisions."""
    counted = {}
    for number, weights in enumerate(layers):
        active, experts = (weights >= 0).astype(np.int64), weights.shape[-1]
        mass = np.maximum(weights, 0)
        share = mass / np.maximum(mass.sum(-1, keepdims=True), 1e-300)
        entropy = -(share * np.log(np.maximum(share, 1e-300))).sum()
        by_label = np.zeros((len(names), experts), dtype=np.int64)
        np.add.at(by_label, labels_NP.ravel(), active.reshape(-1, experts))
        flat_TE = active.reshape(-1, experts)
        counted[name.format(2 * number + 1)] = LayerCounts(
            tokens=np.array(len(flat_TE)),
            rows=np.array(flat_TE.sum()),
            pairs=flat_TE.sum(0),
            mass=np.round(mass.sum((0, 1)) * FIXED_POINT).astype(np.int64),
            token_entropy=np.array(round(float(entropy) * FIXED_POINT)),
            tokens_by_experts=np.bincount(flat_TE.sum(1), minlength=experts + 1),
            both=flat_TE.T @ flat_TE,
            pairs_by_label=by_label,
            pairs_by_position=active.sum(0),
            tokens_by_position=np.full(active.shape[1], len(active)),
            grid=grid,
        )
    return Counts(counted, names if layers else ())


def figures_of(layer: str, counts: LayerCounts) -> dict[str, Any]:
    """The entry of a layer in `result.json`."""
    experts, tokens, pairs = counts.num_experts, int(counts.tokens), int(counts.pairs.sum())
    scale = math.log(experts) if experts > 1 else math.inf
    load, mean = counts.pairs / max(pairs, 1), 1 / experts
    return {
        "layer": layer,
        "entropy": entropy_of(load) / scale,
        "entropy_min": least_entropy(pairs / tokens) / scale,
        "token_entropy": float(counts.token_entropy) / FIXED_POINT / tokens / scale,
        "load_cv": float(load.std()) / mean,
        "load_max": float(load.max()),
        "load_max_ratio": float(load.max()) / mean,
        "load_min_ratio": float(load.min()) / mean,
        "dead": float((load == 0).mean()),
        "nearly_dead": float((load < 0.01 * mean).mean()),
        "density": pairs / (tokens * experts),
        "compute_density": pairs / (tokens * experts),
        "load": load.tolist(),
        "gate_mass": (counts.mass / max(int(counts.mass.sum()), 1)).tolist(),
        "experts_per_token": counts.tokens_by_experts.tolist(),
        "label_information": information_of(counts.pairs_by_label) / math.log(2),
        "label_information_share": information_of(counts.pairs_by_label) / (entropy_of(load) or 1),
    }


def entropy_of(shares: Any) -> float:
    return sum(-float(share) * math.log(share) for share in np.ravel(shares) if share > 0) + 0.0


def least_entropy(used: float) -> float:
    """Of the load, with so many experts a token."""
    return entropy_of([1 / used] * math.floor(used) + [(used - math.floor(used)) / used])


def information_of(table: np.ndarray) -> float:
    joint = table / max(int(table.sum()), 1)
    return max(0.0, entropy_of(joint.sum(0)) + entropy_of(joint.sum(1)) - entropy_of(joint))


def write_run(
    folder: Path,
    gate: str,
    result: dict[str, Any],
    counts: Counts,
    scores: tuple[str, ...],
    speed: str,
    size: Size,
) -> None:
    """All files but the maps."""
    layers = [figures_of(name, layer) for name, layer in counts.layers.items()]
    keys = [key for key, value in layers[0].items() if isinstance(value, float)] if layers else []
    mean = {key: float(np.mean([layer[key] for layer in layers])) for key in keys}
    result = {**result, "gate": gate, "routing": {"mean": mean or None, "layers": layers}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.pt").write_bytes(b"weights")
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "config.yaml").write_text(config_of(folder, gate, result, size), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT), encoding="utf-8")
    lines = [*training_lines(result, counts, speed, size), *evaluation_lines(result, counts, scores, size)]
    lines.sort(key=lambda line: (line["step"], line["kind"] == "evaluation"))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    if counts.layers:
        save_counts(counts, folder / COUNTS)


def training_lines(result: dict[str, Any], counts: Counts, speed: str, size: Size) -> list[dict[str, Any]]:
    """The routing goes in equal steps to that of the evaluation, and with a controller λ goes up by equal factors."""
    lines = []
    for number in range(1, size.lines + 1):
        done = number / size.lines
        line: dict[str, Any] = {
            "kind": "train",
            "step": round(number * result["steps"] / size.lines),
            "epoch": 3 * done,
            "loss": result["loss"] + 2 * math.exp(-4 * done),
            "balance_loss": 0.01 * done,
            "lr": 1e-3 * math.sin(math.pi * min(done, 0.999)),
            speed: result[speed],
            "data_wait": 0.3 - 0.2 * done,
            "data_wait_max": 0.5 - 0.2 * done,
            "resident_gib": 1.5 + done,
        }
        if counts.layers:
            line |= served_lines(counts, done, adaptive=result["gate"] in ADAPTIVE)
            if result["gate"] in ADAPTIVE:
                line["balance_coefficient"] = 10 ** (-10 + 8 * done)
        lines.append(line)
    return lines


def served_lines(counts: Counts, done: float, *, adaptive: bool) -> dict[str, Any]:
    """At first even: of all pairs where the density adapts, else of as many as in the end."""
    served, means = {}, dict.fromkeys(("entropy", "entropy_min", "load_max", "dead", "density"), 0.0)
    for name, layer in counts.layers.items():
        tokens = int(layer.tokens)
        first = tokens if adaptive else int(layer.pairs.sum()) / layer.num_experts
        pairs = np.round(first * (1 - done) + layer.pairs * done).astype(int)
        served[name] = {"tokens": tokens, "pairs": pairs.tolist()}
        load = pairs / max(pairs.sum(), 1)
        scale = math.log(len(pairs)) if len(pairs) > 1 else math.inf
        means["entropy"] += entropy_of(load) / scale / len(counts.layers)
        means["entropy_min"] += least_entropy(pairs.sum() / tokens) / scale / len(counts.layers)
        means["load_max"] += float(load.max()) / len(counts.layers)
        means["dead"] += float((load == 0).mean()) / len(counts.layers)
        means["density"] += pairs.sum() / tokens / len(pairs) / len(counts.layers)
    return {"routing": means, "layers": served}


def evaluation_lines(
    result: dict[str, Any], counts: Counts, scores: tuple[str, ...], size: Size
) -> list[dict[str, Any]]:
    """Scores get better towards the result; the last evaluation is that of the result."""
    lines = []
    for number in range(1, size.evaluations + 1):
        done = number / size.evaluations
        line: dict[str, Any] = {
            "kind": "evaluation",
            "step": round(done * result["steps"]),
            "epoch": 3 * done,
            **{key: result[key] for key in scores},
            "train_flops": round(done * result["train_flops"]),
            "routing": result["routing"]["mean"],
        }
        line[scores[0]] *= 0.5 + 0.5 * done
        line["loss"] /= 0.5 + 0.5 * done
        if counts.layers:
            served = served_lines(counts, done, adaptive=result["gate"] in ADAPTIVE)
            line |= {"routing": {**line["routing"], **served["routing"]}, "layers": served["layers"]}
            if number > 1:
                line["changed"] = {name: 0.6 / number / (1 + i) for i, name in enumerate(counts.layers)}
        lines.append(line)
    return lines


def write_maps(
    folder: Path, layers: list[np.ndarray], labels_NP: np.ndarray, names: tuple[str, ...], size: Size
) -> None:
    """Three of the images: patches of 4 × 4 pixels, each of the colour of its image, brighter towards the right."""
    from vmoe.report.routing_maps import ImageRouting, MapLayer, favourites_of, save_routing_maps

    rows, columns = size.grid
    shown = min(3, len(labels_NP))
    images = np.zeros((shown, 4 * rows, 4 * columns, 3), dtype=np.uint8)
    images += np.linspace(30, 250, 4 * columns, dtype=np.uint8)[:, None]
    images[np.arange(shown), :, :, np.arange(shown) % 3] = 40
    routing = ImageRouting(
        images=images,
        names=tuple(f"{number}.png" for number in range(shown)),
        labels=tuple(names[labels_NP[number, 0]] for number in range(shown)),
        layers=tuple(
            MapLayer(f"blocks.{2 * number + 1}.mlp", (1, rows, columns), weights[:shown].astype(np.float32))
            for number, weights in enumerate(layers)
        ),
    )
    routing = replace(routing, favourites=favourites_of(routing))
    save_routing_maps(routing, folder / "routing_maps.npz")


ENVIRONMENT = {
    "time": "2026-11-22T12:00:00+00:00",
    "command": ["vmoe", "train", "configs/demo/topk.yaml"],
    "python": "3.11.7",
    "platform": "Linux-6.1-x86_64",
    "packages": {"vmoe": "0.1.0", "torch": "2.15.0", "ffcv": None},
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "device": "x86_64 CPU",
    "cuda": None,
    "processes": 1,
    "cores": 2,
    "threads": 1,
}


def config_of(folder: Path, gate: str, result: dict[str, Any], size: Size) -> str:
    gates = {"routing_free": "{kind: routing_free, target_density: 0.25}", "dense": "{kind: dense}"}
    return f"""\
task: {result.get("task", "images")}
output: {folder}
seed: {result["seed"]}
model:
  name: {result["model"]}
moe:
  gate: {gates.get(gate, f"{{kind: {gate}, k: 2}}")}
  num_experts: {size.experts}
data:
  train: {result["data"]}
  val: {result["data"]}
schedule:
  epochs: 3
"""
