"""`vmoe upcycle`: a trained dense model in, a checkpoint of the MoE model that a config describes out."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import nn

from vmoe.backbones.host import HostBlock
from vmoe.config import ConfigError, RunConfig, load_config
from vmoe.moe import DenseExperts, LowRankGluExperts, MoE, MoESpec, evaluating, record
from vmoe.moe.build import seeded
from vmoe.moe.upcycle import factorisation_error, hidden_width, typical_tokens
from vmoe.report.table import Column, Table
from vmoe.train.checkpoint import save_checkpoint

from .stored import read_stored
from .tasks import Entry, Start, assembly_of
from .weights import require_same_architecture, require_same_host

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
        from_checkpoint(options.source, config)
        if Path(options.source).exists()
        else from_pretrained(options.source, config)
    )
    assembly = assembly_of(source.config)
    torch.manual_seed(config.seed)
    host = assembly.build_host(source.entry, source.start)
    table = convert(host, source.config.moe, assembly.backbone)
    print(table.text())
    checkpoint = {
        **assembly.describe_model(source.entry),
        "weights": host.state_dict(),
        "ema": None,
        "evaluate": "raw",
        "training": {"step": 0, "train_flops": 0},  # since the conversion
    }
    save_checkpoint(target, checkpoint)
    print(target)


class Source(NamedTuple):
    """What is converted. config: the one given, with what comes along with the weights. entry: the checkpoint's about
    data. start: None for weights of the model's library.
    """

    config: RunConfig
    entry: Entry
    start: Start | None


def from_checkpoint(path: str, config: RunConfig) -> Source:
    """A dense checkpoint of vmoe, with what it was trained on.

    Raises `FileNotFoundError`, or `ValueError`: no checkpoint of vmoe, one of another model, or no dense one.
    """
    start = Start.of(read_stored(path), path)
    if not start.is_host:
        has = f"gate {start.moe.gate.kind}, experts {start.moe.experts and start.moe.experts.kind}"
        raise ConfigError(f"{path} holds a model with MoE layers ({has}); allowed: a dense one, with its own MLPs")
    require_same_architecture(start, config)
    config = assembly_of(config).with_data_of(start)
    config = upcycled(config, weights=Path(path), pretrained=False)
    require_same_host(start, config)
    return Source(config, start.data, start)


def from_pretrained(name: str, config: RunConfig) -> Source:
    """The pretrained model of that name from the library of the config's model, at the config's input size.

    Raises `ConfigError`: neither a file nor a name that the library knows, no weights, another model than the config's,
    or nothing that they were trained to tell apart.
    """
    config, entry = assembly_of(config).pretrained(name)
    return Source(upcycled(config, name=name, pretrained=True, weights=None), entry, None)


def upcycled(config: RunConfig, **model: object) -> RunConfig:
    """The config with these keys of its model, and MoE layers made of the MLPs."""
    moe = dataclasses.replace(config.moe, init="upcycle")
    return config.model_copy(update={"moe": moe, "model": config.model.model_copy(update=model)})


def convert(host: nn.Module, moe: MoESpec, backbone: ModuleType) -> Table:
    """Put MoE layers made of its MLPs into a dense model, in place; the table says how near they come to those."""
    blocks: list[HostBlock] = backbone.host_blocks(host)
    tokens = backbone.count_tokens(host, blocks)
    backbone.add_moe(host, moe)
    kind = moe.experts.kind if moe.experts else ""
    rows = [
        describe_layer(block, kind, block.block.mlp, count)
        for block, count in zip(blocks, tokens, strict=True)
        if isinstance(block.block.mlp, MoE | DenseExperts)
    ]
    columns = zip(HEADERS, zip(*rows, strict=True), strict=True)
    texts = ("layer", "experts")
    return Table(tuple(Column(header, cells, {}, numeric=header not in texts) for header, cells in columns), note=NOTE)


def describe_layer(block: HostBlock, kind: str, layer: MoE | DenseExperts, tokens: int) -> Row:
    """A row of the table, in the order of `HEADERS`.

    block: as it was before. kind: of the experts. tokens: of a sequence, there.
    """
    experts, shared = layer.experts, layer.shared if isinstance(layer, MoE) else None
    rank, factorised = "–", "–"
    if isinstance(experts, LowRankGluExperts):
        rank = str(experts.gate_down.weight.shape[1])
        factorised = f"{factorisation_error(experts, block.dense):.2g}"
    measured = measure(layer, block, tokens)
    return (
        block.name,
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
def measure(layer: MoE | DenseExperts, block: HostBlock, tokens: int) -> Measured:
    """Compare a layer with the MLP it stands for, as both evaluate, on random sequences of so many tokens."""
    with seeded(0):
        typical = typical_tokens(block.norm, block.dense.fc1.in_features, tokens)
    x = typical.before_norm if isinstance(layer, MoE) and layer.norm is not None else typical.normed
    with evaluating(layer, block.mlp), record(layer) as routings:
        y, wanted = layer(x), block.mlp(typical.normed)
    variable = [routing for routing in routings.values() if routing.num_pairs is None]
    density = float(variable[0].active.float().mean()) if variable else None
    return Measured(float((y - wanted).norm() / wanted.norm()), density)
