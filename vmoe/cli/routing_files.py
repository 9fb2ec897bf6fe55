"""What an evaluation leaves to look at: its counts, and a sample of its data with the routing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from torch import nn

from vmoe.moe import RoutingStats
from vmoe.report.counts import COUNTS, Counts, LayerCounts, save_counts
from vmoe.report.routing_maps import ROUTING_MAPS, save_routing_maps
from vmoe.train.probe import Probe
from vmoe.train.task import Task

from .tasks import Assembly, Entry


def save_routing(
    stats: RoutingStats | None,
    model: nn.Module,
    task: Task,
    assembly: Assembly,
    entry: Entry,
    probe: Probe | None,
    folder: Path,
) -> None:
    """Write routing.npz and, of a task that has them, routing_maps.npz into the folder; nothing for a model without MoE
    layers, or where nothing was counted.

    entry: the checkpoint's about its data.
    """
    if stats is None or not stats.layers:
        return
    save_counts(counts_of(stats, model, assembly, entry), folder / COUNTS)
    try:
        maps = None if probe is None else assembly.routing_maps(model, task, entry, probe)
    except ValueError as error:  # weights that are no numbers: the counts say what there is to say
        print(f"no {ROUTING_MAPS}: {error}", file=sys.stderr)
        return
    if maps is not None:
        save_routing_maps(maps, folder / ROUTING_MAPS)


def counts_of(stats: RoutingStats, model: nn.Module, assembly: Assembly, entry: Entry) -> Counts:
    """The counts as routing.npz holds them, with the names of labels and the places of positions."""
    layers = {}
    for name, counts in stats.layers.items():
        grid = None if counts.positions is None else assembly.token_grid(model, counts.positions, entry)
        arrays = {key: tensor.cpu().numpy() for key, tensor in counts.tensors().items()}
        layers[name] = LayerCounts(**arrays, grid=np.array([] if grid is None else grid, dtype=np.int64))
    return Counts(layers, assembly.label_names(entry))
