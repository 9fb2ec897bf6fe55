"""Does training go the same way however a model lies on several processes? Traces of the loss against one process.

Each row of the demo (a ViT on the embedded digits, AdamW with warm-up, weight decay and clipping) takes the same steps
over the same images in every layout, from the same weights, in float32. Nothing is drawn at random on the way. What is
reported of a layout is the largest relative difference of a step's loss, balance included, from that of one process,
the parameters that a process holds, and the time of a step, for which all processes here share the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch.multiprocessing import spawn

from benchmarks.report import Report, Row, arguments, reporting
from vmoe.cli.train import build
from vmoe.config import RunConfig, load_config
from vmoe.train.distributed import Processes, start_processes
from vmoe.train.loop import steps_until
from vmoe.train.meter import Meter
from vmoe.train.parallel.layout import parameters_here
from vmoe.train.runfolder import RunFolder

CONFIGS = Path(__file__).parents[1] / "configs" / "demo"
GATES = ("topk", "self", "routing_free")
TOLERANCE = 1e-5
BATCH = 48
FIRST = 5  # steps whose time does not count
BYTES = 4  # of a parameter
COLUMNS = ("gate", "layout", "processes", "largest difference", "at step", "KiB of parameters", "ms a step")
# No budget: every layout takes its steps once.
BUDGET = {"cpu": 0.0, "cuda": 0.0}


class LayoutOf(NamedTuple):
    name: str
    processes: int
    overrides: tuple[str, ...] = ()


FSDP = "parallel.strategy=fsdp"
LAYOUTS = (
    LayoutOf("ddp", 2),
    LayoutOf("ddp", 4),
    LayoutOf("fsdp", 2, (FSDP,)),
    LayoutOf("experts over 2", 2, ("parallel.experts=2",)),
    LayoutOf("experts over 2", 4, ("parallel.experts=2",)),
    LayoutOf("experts over 4", 4, ("parallel.experts=4",)),
    LayoutOf("fsdp, experts over 2", 2, (FSDP, "parallel.experts=2")),
)
ALONE = LayoutOf("one process", 1)


class Trace(NamedTuple):
    """losses: of each step, balance included. seconds: of each step. parameters: that the first process holds."""

    losses: list[float]
    seconds: list[float]
    parameters: int


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with reporting(options) as report, tempfile.TemporaryDirectory() as folder:
        layouts = [ALONE, *(layout for layout in LAYOUTS if layout.processes in options.processes)]
        works = [(gate, layout) for layout in layouts for gate in options.gates]
        traces: dict[tuple[str, LayoutOf], Trace] = {}
        for world in (1, *options.processes):
            these = [work for work in works if work[1].processes == world]
            traces |= dict(zip(these, run(these, options, Path(folder) / str(world)), strict=True))
        for gate in options.gates:
            compare(report, gate, {layout: traces[gate, layout] for layout in layouts}, options.steps)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments("layouts", __doc__, BUDGET)
    parser.add_argument("--gates", nargs="+", choices=GATES, default=list(GATES))
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4], help="of the layouts to compare")
    parser.add_argument("--steps", type=int, default=20)
    parser.set_defaults(device="cpu")
    return parser.parse_args(argv)


def compare(report: Report, gate: str, traces: Mapping[LayoutOf, Trace], steps: int) -> None:
    """One table, of one gate."""
    rows: list[Row] = [row_of(gate, layout, trace, traces[ALONE]) for layout, trace in traces.items()]
    note = f"{steps} steps of {BATCH} images; allowed: {TOLERANCE:g}, relative to the loss of one process."
    report.add(gate, COLUMNS, rows, note)
    for row in rows[1:]:
        report.target(f"{gate}, {row['layout']}, {row['processes']} processes", TOLERANCE, row["largest difference"])


def row_of(gate: str, layout: LayoutOf, trace: Trace, alone: Trace) -> Row:
    apart = [abs(one - other) / abs(other) for one, other in zip(trace.losses, alone.losses, strict=True)]
    largest = max(apart)
    return {
        "gate": gate,
        "layout": layout.name,
        "processes": layout.processes,
        "largest difference": None if layout is ALONE else largest,
        "at step": None if layout is ALONE else apart.index(largest) + 1,
        "KiB of parameters": trace.parameters * BYTES / 2**10,
        "ms a step": 1000 * median(trace.seconds[FIRST:] or trace.seconds),
        "apart": apart,
        "losses": trace.losses,
    }


def config_of(gate: str, layout: LayoutOf, options: argparse.Namespace, output: Path) -> RunConfig:
    overrides = [
        *(f"output={output}", f"train.device={options.device}", "train.precision=float32", "train.log_every=1"),
        *(f"schedule.steps={options.steps}", f"schedule.warmup_steps={min(FIRST, options.steps - 1)}"),
        *("train.probe_samples=0", "data.crop_scale=[1.0, 1.0]", "data.crop_ratio=[1.0, 1.0]", "data.loader=folder"),
        *("data.workers=1", f"data.batch_size={BATCH}"),
    ]
    return load_config(CONFIGS / f"{gate}.yaml", [*overrides, *layout.overrides])


def run(works: Sequence[tuple[str, LayoutOf]], options: argparse.Namespace, folder: Path) -> list[Trace]:
    """The traces of gates in layouts of equally many processes, one after the other in the same processes."""
    folder.mkdir(parents=True)
    configs = [config_of(*work, options, folder / str(number)) for number, work in enumerate(works)]
    world = works[0][1].processes
    spawn(train_all, ([free_port() for _ in configs], configs, world, folder / "traces.json"), nprocs=world)
    return [Trace(*each) for each in json.loads((folder / "traces.json").read_text())]


def train_all(rank: int, ports: Sequence[int], configs: Sequence[RunConfig], world: int, out: Path) -> None:
    """What one of the processes does."""
    torch.set_num_threads(1)
    traces = []
    for port, config in zip(ports, configs, strict=True):
        torchrun: Mapping[str, int | str] = {
            **{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        }
        os.environ |= {name: str(value) for name, value in torchrun.items()}
        with start_processes(config.train.device) as processes:
            traces.append(trace(config, processes))
    if rank == 0:
        out.write_text(json.dumps(traces))


def trace(config: RunConfig, processes: Processes) -> Trace:
    """Take the steps of a config, all in its first epoch."""
    state, parts = build(config, processes, RunFolder(config.output, writes=False, keep=config.checkpoint))
    network, meter = parts.layout.network(state.model.train()), Meter(parts, state.model)
    losses, seconds, start = [], [], time.perf_counter()
    with closing(steps_until(parts.last_step, state, parts, network, meter)) as steps:
        for _ in steps:
            since = meter.since_log()
            assert since.loss is not None, "every step is taken"
            losses.append(since.loss + since.balance_loss)
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
    return Trace(losses, seconds, parameters_here(state.model))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
