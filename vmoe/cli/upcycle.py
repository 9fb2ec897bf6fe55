"""`vmoe upcycle`: a trained dense model in, a checkpoint of the MoE model that a config describes out."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from vmoe.backbones import timm as backbone
from vmoe.config import ConfigError, RunConfig, load_config
from vmoe.moe import DenseExperts, LowRankGluExperts, MoE, MoESpec, record
from vmoe.moe.build import seeded
from vmoe.moe.upcycle import DenseMlp, factorisation_error, hidden_width, typical_tokens
from vmoe.report.table import Column, Table
from vmoe.train.checkpoint import save_checkpoint

from .assemble import build_host, describe_model
from .weights import Start, read_start, require_same_host

Row = tuple[str, str, str, str, str, str, str, str]
HEADERS = ("layer", "experts", "number", "width", "rank", "error, first weight", "error, output", "density")
NOTE = (
    "Errors are relative. First weight: of the MLP's, where low-rank factors stand for it. Output: the layer's against"
    " the MLP's, on random tokens through the norm before it. Number: routed + shared experts."
)


def run(options: argparse.Namespace) -> None:
    config = load_config(options.to, options.set)
    if config.moe.keeps_host:
        raise ConfigError(
            f"{options.to}: moe.gate.kind is 'dense' without experts; allowed: what MLPs can be made into"
        )
    target = Path(options.output) if options.output is not None else config.output / "checkpoints" / "upcycled.pt"
    if target.exists():
        raise ConfigError(f"{target} is there already, and is not overwritten; --output names another file")
    source = (
        from_checkpoint(options.source, config) if Path(options.source).exists() else from_timm(options.source, config)
    )
    config = source.config
    torch.manual_seed(config.seed)
    host = build_host(config, len(source.classes), source.start)
    table = convert(host, config.moe)
    print(table.text())
    checkpoint = {
        **describe_model(config, source.classes),
        "weights": host.state_dict(),
        "ema": None,
        "evaluate": "raw",
        "training": {"step": 0, "train_flops": 0},  # since the conversion
    }
    save_checkpoint(target, checkpoint)
    print(target)


class Source(NamedTuple):
    """What is converted. config: the one given, with what comes along with the weights. start: None for timm's."""

    config: RunConfig
    classes: tuple[str, ...]
    start: Start | None


def from_checkpoint(path: str, config: RunConfig) -> Source:
    """A dense checkpoint of vmoe, with its classes, image size and normalisation.

    Raises `FileNotFoundError`, or `ValueError`: no checkpoint of vmoe, one of another model, or no dense one.
    """
    start = read_start(Path(path))
    if not start.is_host:
        has = f"gate {start.moe.gate.kind}, experts {start.moe.experts and start.moe.experts.kind}"
        raise ConfigError(f"{path} holds a model with MoE layers ({has}); allowed: a dense one, with its own MLPs")
    comes_along = {key: start.data[key] for key in ("image_size", "eval_crop")}
    comes_along |= {key: tuple(start.data[key]) for key in ("mean", "std")}
    model = config.model.model_copy(update={"weights": Path(path), "pretrained": False})
    config = upcycled(config, model=model, data=config.data.model_copy(update=comes_along))
    require_same_host(start, config)
    return Source(config, tuple(start.data["classes"]), start)


def from_timm(name: str, config: RunConfig) -> Source:
    """timm's pretrained model of that name, with its classes, crop and normalisation, at the config's image size.

    Raises `ConfigError`: neither a file nor a name that timm knows, no weights, another model than the config's, or no
    classifier.
    """
    if not timm.is_model(backbone.architecture(name)):
        raise ConfigError(f"{name} is neither a file nor a model that timm {timm.__version__} knows")
    if not timm.models.is_model_pretrained(name):
        raise ConfigError(
            f"timm has no pretrained weights of {name}; allowed: a name that timm.list_pretrained() gives"
        )
    if backbone.architecture(name) != backbone.architecture(config.model.name):
        raise ConfigError(
            f"the source is timm's {name}, the config's model.name is {config.model.name}; allowed: the same"
        )
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.num_classes:
        raise ConfigError(f"timm's {name} comes without a classifier; allowed: a pretrained model with classes")
    subset = infer_imagenet_subset({"num_classes": known.num_classes})
    names = ImageNetInfo(subset).label_names() if subset else [str(number) for number in range(known.num_classes)]
    comes_along = {"mean": tuple(known.mean), "std": tuple(known.std), "eval_crop": known.crop_pct}
    model = config.model.model_copy(update={"name": name, "pretrained": True, "weights": None})
    config = upcycled(config, model=model, data=config.data.model_copy(update=comes_along))
    return Source(config, tuple(names), None)


def upcycled(config: RunConfig, **sections: object) -> RunConfig:
    """The config with these sections, and MoE layers made of the MLPs; the weights are evaluated as they are."""
    moe = dataclasses.replace(config.moe, init="upcycle")
    return config.model_copy(update={"moe": moe, **sections})


def convert(host: nn.Module, moe: MoESpec) -> Table:
    """Put MoE layers made of its MLPs into a dense model, in place; the table says how near they come to those."""
    blocks = backbone.host_blocks(host)
    norms = [backbone.norm_before(block.block) for block in blocks]  # a layer may take the block's norm over
    tokens = backbone.count_tokens(host, blocks)
    backbone.add_moe(host, moe)
    kind = moe.experts.kind if moe.experts else ""
    rows = [
        describe_layer(name, kind, block.mlp, mlp, norm, count)
        for (name, block, mlp), norm, count in zip(blocks, norms, tokens, strict=True)
        if isinstance(block.mlp, MoE | DenseExperts)
    ]
    columns = zip(HEADERS, zip(*rows, strict=True), strict=True)
    texts = ("layer", "experts")
    return Table(tuple(Column(header, cells, {}, numeric=header not in texts) for header, cells in columns), note=NOTE)


def describe_layer(
    name: str, kind: str, layer: MoE | DenseExperts, mlp: Any, norm: nn.Module | None, tokens: int
) -> Row:
    """A row of the table, in the order of `HEADERS`. kind: of the experts. tokens: of an image, there."""
    experts, shared = layer.experts, layer.shared if isinstance(layer, MoE) else None
    rank, factorised = "–", "–"
    if isinstance(experts, LowRankGluExperts):
        rank = str(experts.gate_down.weight.shape[1])
        factorised = f"{factorisation_error(experts, DenseMlp(mlp.fc1, mlp.fc2)):.2g}"
    measured = measure(layer, mlp, norm, tokens)
    return (
        name,
        kind,
        f"{experts.num_experts} + {shared.num_experts}" if shared is not None else str(experts.num_experts),
        str(hidden_width(experts)),
        rank,
        factorised,
        f"{measured.error:.2g}",
        "–" if measured.density is None else f"{measured.density:.3f}",
    )


class Measured(NamedTuple):
    """error: ‖layer(x) − mlp(x)‖ / ‖mlp(x)‖. density: the share of active pairs, where the gate does not fix it."""

    error: float
    density: float | None


@torch.no_grad()
def measure(layer: MoE | DenseExperts, mlp: Any, norm: nn.Module | None, tokens: int) -> Measured:
    """Compare a layer with the MLP it stands for, as both evaluate, on random images of so many tokens."""
    with seeded(0):
        typical = typical_tokens(norm, mlp.fc1.in_features, tokens)
    x = typical.before_norm if isinstance(layer, MoE) and layer.norm is not None else typical.normed
    was_training = layer.training
    with record(layer) as routings:
        y, wanted = layer.eval()(x), mlp.eval()(typical.normed)
    layer.train(was_training)
    variable = [routing for routing in routings.values() if routing.num_pairs is None]
    density = float(variable[0].active.float().mean()) if variable else None
    return Measured(float((y - wanted).norm() / wanted.norm()), density)
