"""What a MoE layer costs over the dense MLP of equal active FLOPs: every gate by every dispatch path.

A step is a forward without gradients, or a forward and a backward to the input and all parameters. Paths are compared
with `reference` on the same weights and inputs first; Soft MoE, which has one path of its own, with itself in float64.

Then Routing-Free at several densities: how much of the layer's time does not shrink with the pairs that are active.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from benchmarks.agree import TOLERANCE, Agreement, check
from benchmarks.harness import Clock, Contestant, Step, Timing, count_synchronisations, race
from benchmarks.layers import (
    DEFAULT_WAYS,
    DTYPES,
    WAYS,
    DenseMlp,
    Size,
    Work,
    as_gradients,
    build_layer,
    chosen_path,
    density_of,
    normed_tokens,
    set_density,
    with_path,
)
from benchmarks.memory import Memory, measure_memory
from benchmarks.report import Report, Row, arguments, reporting
from vmoe.moe import (
    AutonomyOfExperts,
    ExpertChoice,
    GateSpec,
    LowRankGlu,
    MoE,
    MoESpec,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
)

GATES: dict[str, GateSpec] = {
    "topk": TopK(),
    "self": SelfRouting(),
    "random": Random(),
    "aoe": AutonomyOfExperts(),
    "relu": Relu(),
    "routing_free": RoutingFree(),
    "expert_choice": ExpertChoice(),
    "soft": Soft(),
}
SIZES = {
    "ti32": Size(192, 32, 197),
    "ti256": Size(192, 256, 197),
    "s8": Size(384, 8, 197),
    "s64": Size(384, 64, 197),
    "s256": Size(384, 256, 197),
    "b8": Size(768, 8, 197),
    "b128": Size(768, 128, 197),
    "gpt2x1": Size(768, 1, 1024),
    "gpt2x8": Size(768, 8, 1024),
}
# Which sizes each device measures unless told otherwise: with every gate, and with topk alone.
EVERY_GATE = {"cpu": ("s8",), "cuda": ("s64",)}
TOPK_ALONE = {"cpu": ("s64", "gpt2x1"), "cuda": ("ti256", "s64", "s256", "b128", "gpt2x8")}
DEFAULT_DTYPES = {"cpu": ("float32",), "cuda": ("bfloat16", "float32")}
HEADLINE = ("topk", "s64")  # D 384, E 8, top-2 experts of hidden 768, T 12,608
HEADLINE_DTYPE = {"cpu": "float32", "cuda": "bfloat16"}
HEADLINE_AT_MOST = {"cpu": 1.15, "cuda": 1.25}
BUDGET = {"cpu": 90, "cuda": 180}
VARIABLE = ("relu", "routing_free")  # gates whose number of pairs is data
FORWARD, TRAINING = "forward", "forward + backward"

DENSITIES = (0.1, 0.25, 0.5)
SWEEP = MoESpec(gate=RoutingFree(), experts=LowRankGlu(hidden=384, rank=32), num_experts=12)
SWEEP_SIZES = (Size(384, 32, 197), Size(384, 64, 197))  # T 6,304 and 12,608
INTERCEPT_AT_MOST = {"cpu": 0.15, "cuda": 0.30}

# The gradient of Soft MoE's one scale is a sum whose terms cancel to some hundredth of their size.
SOFT_TOLERANCE = 1e-4
COLUMNS = ("size", "dtype", "gate", "step", "path", "auto is", "ms", "over dense", "MiB", "MiB over dense", "syncs")
NOTE = (
    "MiB: the peak of a step beyond what lay allocated before, without the parameters' gradients."
    " syncs: waits of the host for the GPU in a step."
)


@dataclass(frozen=True)
class Case:
    """One gate at one size in one type."""

    gate: str
    size: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.gate}, {self.size}, {self.dtype}"

    @property
    def autocast(self) -> torch.dtype | None:
        return autocast_of(self.dtype)


def autocast_of(dtype: str) -> torch.dtype | None:
    """Weights and inputs are float32; another type is autocast's."""
    return None if dtype == "float32" else DTYPES[dtype]


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    device = torch.device(options.device)
    cases = list(choose_cases(options))
    sweeps = [] if options.no_sweep else [(size, dtype) for size in SWEEP_SIZES for dtype in options.dtypes]
    with reporting(options) as report:
        clock = Clock(options.budget, 2 * len(cases) + len(sweeps) * len(options.sweep_paths))
        rows: list[Row] = []
        try:
            for case in cases:
                rows += measure(report, case, options.paths, device, clock)
                print(f"{case}: done", flush=True)
        finally:
            report.add("MoE layers over the dense MLP of equal active FLOPs", COLUMNS, rows, NOTE)
        add_headline(report, rows)
        if sweeps:
            add_sweep(report, sweeps, options.sweep_paths, device, clock)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments("moe_layer", __doc__, BUDGET)
    parser.add_argument("--gates", nargs="+", choices=list(GATES), default=list(GATES))
    parser.add_argument("--paths", nargs="+", choices=list(WAYS), help="(default: all that suit the device)")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), help="with every gate chosen (default: a selection)")
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES))
    parser.add_argument("--sweep-paths", nargs="+", choices=list(WAYS), default=["auto"])
    parser.add_argument("--no-sweep", action="store_true", help="leave Routing-Free's densities out")
    options = parser.parse_args(argv)
    options.paths = options.paths or DEFAULT_WAYS[options.device]
    options.dtypes = options.dtypes or list(DEFAULT_DTYPES[options.device])
    return options


def choose_cases(options: argparse.Namespace) -> Iterator[Case]:
    """The cases of the options; by default every gate at one size, and topk at several."""
    for dtype in options.dtypes:
        for gate in options.gates:
            chosen = options.sizes or EVERY_GATE[options.device]
            if gate == "topk" and not options.sizes:
                chosen = dict.fromkeys((*chosen, *TOPK_ALONE[options.device]))
            yield from (Case(gate, size, dtype) for size in chosen)


def measure(report: Report, case: Case, paths: Sequence[str], device: torch.device, clock: Clock) -> list[Row]:
    """Rows of the dense MLP and of each path: agreement first, then memory, then both races."""
    size = SIZES[case.size]
    work = Work.on(normed_tokens(size, device), case.autocast)
    layer = build_layer(MoESpec(gate=GATES[case.gate]), size, device)
    if case.gate in VARIABLE:
        set_density(layer, work, GATES[case.gate].active_experts(8) / 8)
    modules: dict[str, nn.Module] = {"dense": DenseMlp(size.dim, 4 * size.dim).to(device)}
    modules |= agreeing(report, case, layer, work, paths)
    rows = []
    kinds: dict[str, dict[str, Callable[[], Any]]] = {
        FORWARD: {path: work.inference(module) for path, module in modules.items()},
        TRAINING: {path: work.training(module) for path, module in modules.items()},
    }
    for name, steps in kinds.items():
        memory = {
            path: measure_memory(step if name == TRAINING else nothing_after(step), device)
            for path, step in steps.items()
        }
        syncs = {path: count_synchronisations(step, device) for path, step in steps.items()}
        timings = race([Contestant(path, step) for path, step in steps.items()], device, clock.share())
        auto = "slots" if case.gate == "soft" else chosen_path(layer, work)
        rows += [row_of(case, name, path, timings, memory, syncs[path]) | {"auto is": auto} for path in steps]
    return rows


def nothing_after(step: Step) -> Callable[[], tuple[()]]:
    """The step without what it returns."""

    def run() -> tuple[()]:
        step()
        return ()

    return run


def row_of(
    case: Case, step: str, path: str, timings: dict[str, Timing], memory: dict[str, Memory], syncs: int | None
) -> Row:
    return {
        "size": case.size,
        "shape": str(SIZES[case.size]),
        "dtype": case.dtype,
        "gate": case.gate,
        "step": step,
        "path": path,
        "ms": timings[path],
        "over dense": timings[path].over(timings["dense"]),
        "MiB": memory[path],
        "MiB over dense": memory[path].kept / memory["dense"].kept,
        "syncs": syncs,
    }


def agreeing(report: Report, case: Case, layer: MoE, work: Work, paths: Sequence[str]) -> dict[str, nn.Module]:
    """The layer by each path that takes the case, after a comparison; those that refuse are skipped."""
    if case.gate == "soft":
        report.agreements.append(check_slots(case, layer, work))
        return {"auto": layer}
    reference = as_gradients(work.outcome(with_path(layer, "reference")))
    modules: dict[str, nn.Module] = {}
    fixed = GATES[case.gate].kind not in VARIABLE
    for path in paths:
        if ("auto" in paths and path == chosen_path(layer, work)) or (fixed and path == "capacity"):
            continue  # measured as auto, and does nothing
        module = with_path(layer, path)
        try:
            found = as_gradients(work.outcome(module))
        except ValueError as refusal:
            report.skip(f"{case}, {path}", refusal)
            continue
        tolerance = TOLERANCE[DTYPES[case.dtype]]
        report.agreements.append(check(path, found, reference, tolerance, work=str(case), reference="reference"))
        modules[path] = module
    return modules


def check_slots(case: Case, layer: MoE, work: Work) -> Agreement:
    """Soft MoE's one path in float32, whatever the case's type, against float64."""
    grad = work.grads[torch.float32]
    double = Work(work.x.detach().double().requires_grad_(), {torch.float64: grad.double()}, None)
    expected = as_gradients(double.outcome(copy.deepcopy(layer).double()))
    found = as_gradients(replace(work, autocast=None).outcome(layer))
    return check("auto", found, expected, SOFT_TOLERANCE, work=str(case), reference="float64")


def add_headline(report: Report, rows: Sequence[Row]) -> None:
    """The one ratio of training that stands for all, where it was measured."""
    gate, size = HEADLINE
    device = report.device.type
    wanted = {
        "gate": gate,
        "size": size,
        "dtype": HEADLINE_DTYPE[device],
        "step": "forward + backward",
        "path": "auto",
    }
    for row in rows:
        if all(row[key] == value for key, value in wanted.items()):
            what = f"topk layer over dense MLP, {row['shape']}, {row['dtype']}, {row['step']}"
            report.target(what, HEADLINE_AT_MOST[device], row["over dense"].median)


def add_sweep(
    report: Report, sweeps: Sequence[tuple[Size, str]], paths: Sequence[str], device: torch.device, clock: Clock
) -> None:
    """Routing-Free's time at several densities, the straight line through it, and its intercept."""
    rows, fits = [], []
    for size, dtype in sweeps:
        for path in paths:
            try:
                found = measure_sweep(report, size, dtype, path, device, clock)
            except ValueError as refusal:
                report.skip(f"densities, {size}, {dtype}, {path}", refusal)
                continue
            rows += found
            fit = fit_line([(row["density"], row["ms"].median) for row in found])
            share = fit.intercept / found[-1]["ms"].median
            fits.append(
                {
                    "tokens": size.total,
                    "dtype": dtype,
                    "path": path,
                    "intercept ms": 1000 * fit.intercept,
                    "ms a unit of density": 1000 * fit.slope,
                    "intercept over time at density 0.5": share,
                }
            )
            if path == "auto" and dtype == HEADLINE_DTYPE[device.type]:
                what = f"Routing-Free's intercept over its time at density 0.5, T {size.total}, {dtype}"
                report.target(what, INTERCEPT_AT_MOST[device.type], share)
    note = "D 384, 12 experts of hidden 384 and rank 32; forward + backward; the threshold is set for the density."
    report.add("Routing-Free by density", ("tokens", "dtype", "path", "density", "ms"), rows, note)
    columns = ("tokens", "dtype", "path", "intercept ms", "ms a unit of density", "intercept over time at density 0.5")
    report.add("The line through those medians", columns, fits)


def measure_sweep(report: Report, size: Size, dtype: str, path: str, device: torch.device, clock: Clock) -> list[Row]:
    work = Work.on(normed_tokens(size, device), autocast_of(dtype))
    layer = build_layer(SWEEP, size, device)
    contestants, densities = [], {}
    for density in DENSITIES:
        twin = copy.deepcopy(layer)
        set_density(twin, work, density)
        chosen = with_path(twin, path)
        found, expected = (as_gradients(work.outcome(module)) for module in (chosen, with_path(twin, "reference")))
        where = f"density {density}, T {size.total}, {dtype}"
        tolerance = TOLERANCE[DTYPES[dtype]]
        report.agreements.append(check(path, found, expected, tolerance, work=where, reference="reference"))
        contestants.append(Contestant(str(density), work.training(chosen)))
        densities[str(density)] = density_of(twin, work)
    timings = race(contestants, device, clock.share())
    return [
        {"tokens": size.total, "dtype": dtype, "path": path, "density": densities[name], "ms": timing}
        for name, timing in timings.items()
    ]


@dataclass(frozen=True)
class Line:
    intercept: float
    slope: float


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """The straight line of least squares."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return Line(mean_y - slope * mean_x, slope)


if __name__ == "__main__":
    main(sys.argv[1:])
