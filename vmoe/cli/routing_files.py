"""What an evaluation leaves to look at: its counts, and a sample of its data with the routing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from torch import nn

from vmoe.moe import RoutingStats
from vmoe.report.counts import COUNTS, Counts, LayerCounts, save_counts
from vmoe.report.routing_maps import ROUTING_MAPS, ImageRouting, save_routing_maps
from vmoe.train.probe import Probe
from vmoe.train.task import Task

from .tasks import Assembly, Entry


def maps_of(
    stats: RoutingStats | None, model: nn.Module, task: Task, assembly: Assembly, entry: Entry, probe: Probe | None
) -> ImageRouting | None:
    """The probe's routing as pictures, where the task has them; None for a model without MoE layers, or where nothing
    was counted.

    entry: the checkpoint's about its data.
    """
    if stats is None or not stats.layers or probe is None:
        return None
    try:
        return assembly.routing_maps(model, task, entry, probe)
    except ValueError as error:  # weights that are no numbers: the counts say what there is to say
        print(f"no {ROUTING_MAPS}: {error}", file=sys.stderr)
        return None


def save_routing(
    stats: RoutingStats | None,
    maps: ImageRouting | None,
    model: nn.Module,
    assembly: Assembly,
    entry: Entry,
    folder: Path,
) -> None:
    """Write routing.npz and, where there are maps, routing_maps.npz into the folder; nothing for a model without MoE
    layers, or where nothing was counted.

    maps, entry: as in `maps_of`.
    """
    if stats is None or not stats.layers:
        return
    save_counts(counts_of(stats, model, assembly, entry), folder / COUNTS)
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
