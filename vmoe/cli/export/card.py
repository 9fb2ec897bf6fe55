"""The model card: README.md of an exported model, with the hub's front matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import nn

from vmoe import __version__
from vmoe.api import Weights
from vmoe.config import dump_config, override_config, parse_moe
from vmoe.moe import moe_layers
from vmoe.report import Run, comparison, read_run

from ..subject import run_of
from ..tasks import Assembly

CARD = "README.md"


def model_card(
    model: nn.Module, stored: dict[str, Any], assembly: Assembly[Any], *, name: str, source: str, weights: Weights
) -> str:
    """Markdown: what the model is, how to load it, what it came to, how it was trained.

    name: OWNER/NAME on the hub. source: the checkpoint, whose run may hold results.
    """
    described, layers = stored["model"], [layer for layer, _ in moe_layers(model)]
    native = assembly.load_natively(name) if parse_moe(described["moe"]).keeps_host else None
    front = {
        "library_name": "vmoe" if native is None else "timm",
        "pipeline_tag": assembly.PIPELINE,
        "tags": [assembly.PIPELINE, "vmoe", *(["mixture-of-experts"] if layers else [])],
    }
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}# license: add yours\n---",
        f"# {name.rpartition('/')[2]}",
        describe_model(model, stored, layers),
        f'## Use\n\n```python\nimport vmoe\n\nmodel = vmoe.load("hf-hub:{name}")  # or the path of this folder\n```',
    ]
    if native is not None:
        parts.append(f"It is a plain model of its library too:\n\n```python\n{native}\n```")
    parts += [describe_results(source, stored, weights), describe_training(stored, source)]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_model(model: nn.Module, stored: dict[str, Any], layers: list[str]) -> str:
    """Its name, size and MoE layers, in a sentence or two."""
    params = sum(parameter.numel() for parameter in model.parameters())
    name, moe = stored["model"]["name"], stored["model"]["moe"]
    text = f"`{name}`, {params:,} parameters."
    if not layers:
        return f"{text} A dense model, without Mixture-of-Experts layers."
    experts = f"{moe['num_experts']} experts" + (f" of kind `{moe['experts']['kind']}`" if moe["experts"] else "")
    listed = ", ".join(f"`{layer}`" for layer in layers)
    return f"{text} Mixture-of-Experts layers with gate `{moe['gate']['kind']}` and {experts}: {listed}."


def describe_results(source: str, stored: dict[str, Any], weights: Weights) -> str:
    """A table of the run's result and of the checkpoint's evaluations, with the routing beside the quality."""
    found = [run for run in results_of(Path(source)) if run.steps is not None] if weights == "evaluated" else []
    step = stored["training"]["step"]
    own = [run for run in found if run.steps == step]
    if own:
        return f"## Results\n\n{comparison(own, each=True).markdown().strip()}"
    if found:
        table = comparison(found[:1], each=True).markdown().strip()
        return f"## Results\n\nOf the same run at step {found[0].steps}; these weights are of step {step}.\n\n{table}"
    return ""


def results_of(checkpoint: Path) -> list[Run]:
    """The result of its run, and those of `vmoe eval` of the checkpoint itself; damaged ones are left out."""
    home = run_of(checkpoint)
    folders = [home, *sorted(path.parent for path in home.glob(f"eval/{checkpoint.stem}-*/result.json"))]
    runs = []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except (OSError, ValueError):
            continue
    return runs


def describe_training(stored: dict[str, Any], source: str) -> str:
    """The numbers that people look for, and the whole config."""
    config = override_config(stored["config"], [], source)
    train, optimizer, schedule = config.train, config.optimizer, config.schedule
    length = f"{schedule.steps:,} steps" if schedule.steps is not None else f"{schedule.epochs:,} epochs"
    text = (
        f"With vmoe {stored['vmoe']}, to step {stored['training']['step']} of a"
        f" schedule of {length}: {optimizer.kind}, learning rate {optimizer.lr:g}, weight decay"
        f" {optimizer.weight_decay:g}, {config.data.batch_size} samples a step, seed {config.seed}, data"
        f" `{config.data.train}`."
    )
    if train.evaluate == "ema":
        text += f" The weights are a moving average, decay {train.ema_decay}."
    details = f"<details><summary>The whole config</summary>\n\n```yaml\n{dump_config(config)}```\n\n</details>"
    return f"## Training\n\n{text}\n\n{details}\n\nExported by vmoe {__version__}."
