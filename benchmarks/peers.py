"""The same layer by vmoe and by others: equal weights, equal outputs and gradients, then time and memory.

gated  top-2 of 8 GLU experts of hidden 512: transformers' `MixtralExperts` in each implementation, and scattermoe and
       megablocks where they are installed
plain  top-2 of 8 MLP experts of hidden 768 with biases: loops over a list of experts as public research code has them,
       transformers' functions for such experts, scattermoe
free   Routing-Free at density 0.25, 12 experts of hidden 384 and rank 32: the loop over experts

A step is a forward and a backward to the input and all parameters. What the gate costs is in it: in the first two a
learned top-2 router, in everybody's own form, in the third the norms of the experts' features. Weights and inputs are
of the type named, without autocast, since transformers' grouped product follows the weights' type. The reference of
vmoe's paths is its reference path; that of everybody else, the same in float32, whatever the type, on the same numbers.
Tokens near a tie are left out, so that all route alike.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.agree import TOLERANCE, DisagreementError, check
from benchmarks.harness import Clock, Contestant, count_synchronisations, race
from benchmarks.layers import (
    DTYPES,
    WAYS,
    Size,
    Work,
    as_gradients,
    build_layer,
    chosen_path,
    density_of,
    draw_tokens,
    with_path,
)
from benchmarks.memory import measure_memory
from benchmarks.report import Report, Row, arguments, reporting
from benchmarks.rivals import MaskLoop, MegaBlocks, NonzeroLoop, Rival, RoutingFreeLoop, Scatter
from benchmarks.rivals_transformers import IMPLEMENTATIONS, Gated, Plain
from vmoe.moe import Glu, LowRankGlu, Mlp, MoE, MoESpec, RoutingFree, TopK

Make = Callable[[MoE], Rival]

SMALL = 200  # tokens; sizes below it are there for transformers' batched_mm, and no target is judged by them
SIZES = {
    "cpu": (Size(384, 1, 49), Size(384, 64, 197)),
    "cuda": (Size(384, 1, 197), Size(384, 64, 197), Size(384, 256, 197)),
}
FREE_SIZES = (Size(384, 32, 197), Size(384, 64, 197))  # T 6,304 and 12,608
DEFAULT_DTYPES = {"cpu": ("float32",), "cuda": ("bfloat16",)}
DENSITY = 0.25
# Some sum gradients of biases and gates over thousands of tokens in bfloat16, which float32 does not round.
RIVALS_TOLERANCE = {torch.float32: TOLERANCE[torch.float32], torch.bfloat16: 5e-2}
LIMIT = {"cpu": 8 * 2**30, "cuda": 32 * 2**30}  # bytes that one contestant may take
BUDGET = {"cpu": 60, "cuda": 100}
OURS = "vmoe auto"
COLUMNS = ("tokens", "dtype", "who", "ms", "over vmoe auto", "MiB", "syncs")
NOTE = "MiB: the peak of a step beyond what lay allocated before, without the parameters' gradients."


@dataclass(frozen=True)
class Contest:
    """spec: the layer. rivals: who computes it too, by name. best_at_most: vmoe's time over the best rival's."""

    title: str
    spec: MoESpec
    rivals: Mapping[str, Make]
    sizes: Mapping[str, Sequence[Size]]
    best_at_most: Mapping[str, float]


CONTESTS = {
    "gated": Contest(
        "Top-2 of 8 GLU experts of hidden 512",
        MoESpec(gate=TopK(), experts=Glu(hidden=512)),
        {f"transformers {name}": partial(Gated, implementation=name) for name in IMPLEMENTATIONS}
        | {"scattermoe": Scatter, "megablocks": MegaBlocks},
        SIZES,
        {"cpu": 0.9, "cuda": 0.9},
    ),
    "plain": Contest(
        "Top-2 of 8 MLP experts of hidden 768",
        MoESpec(gate=TopK(), experts=Mlp(hidden=768)),
        {"loop, nonzero": NonzeroLoop, "loop, masks": MaskLoop}
        | {f"transformers {name}": partial(Plain, implementation=name) for name in IMPLEMENTATIONS}
        | {"scattermoe": Scatter},
        SIZES,
        {"cpu": 0.9, "cuda": 0.9},
    ),
    "free": Contest(
        "Routing-Free at density 0.25, 12 experts of hidden 384 and rank 32",
        MoESpec(gate=RoutingFree(), experts=LowRankGlu(hidden=384, rank=32), num_experts=12),
        {"loop": RoutingFreeLoop},
        {"cpu": FREE_SIZES, "cuda": FREE_SIZES},
        {"cpu": 0.6, "cuda": 0.2},
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    device = torch.device(options.device)
    rounds = [
        (contest, size, dtype)
        for contest in (CONTESTS[name] for name in options.contests)
        for dtype in options.dtypes
        for size in contest.sizes[options.device]
    ]
    with reporting(options) as report:
        clock = Clock(options.budget, len(rounds))
        for contest, size, dtype in rounds:
            measure(report, contest, size, dtype, options.paths, device, clock)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments("peers", __doc__, BUDGET)
    parser.add_argument("--contests", nargs="+", choices=list(CONTESTS), default=list(CONTESTS))
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES))
    parser.add_argument("--paths", nargs="+", choices=list(WAYS), default=["auto"], help="vmoe's, beside auto")
    options = parser.parse_args(argv)
    options.dtypes = options.dtypes or list(DEFAULT_DTYPES[options.device])
    options.paths = list(dict.fromkeys(["auto", *options.paths]))
    return options


def measure(
    report: Report,
    contest: Contest,
    size: Size,
    dtype: str,
    paths: Sequence[str],
    device: torch.device,
    clock: Clock,
) -> None:
    """One table: everybody who agrees, in one race."""
    layer = build_layer(contest.spec, size, device).to(DTYPES[dtype])
    x = draw_tokens(layer, size, device, DENSITY)
    work = Work.on(x.to(DTYPES[dtype]))
    own = as_gradients(work.outcome(with_path(layer, "reference")))
    exact = as_gradients(Work.on(x).outcome(with_path(copy.deepcopy(layer).float(), "reference")))
    where = f"{contest.title}, T {size.total}, {dtype}"
    modules: dict[str, nn.Module] = {}
    for path in paths:
        name = f"vmoe {path}"
        try:
            found = as_gradients(work.outcome(with_path(layer, path)))
        except ValueError as refusal:
            report.skip(f"{where}: {name}", refusal)
            continue
        tolerance = TOLERANCE[work.x.dtype]
        report.agreements.append(check(name, found, own, tolerance, work=where, reference="reference path"))
        modules[name] = with_path(layer, path)
    for name, make in contest.rivals.items():
        if "batched_mm" in name and (needed := gathered_bytes(layer, size)) > LIMIT[device.type]:
            report.skip(f"{where}: {name}", f"its gathered weights take {needed / 2**30:.0f} GiB")
            continue
        rival = invite(report, name, make, layer, work, where)
        if rival is not None:
            module, found = rival
            tolerance = RIVALS_TOLERANCE[work.x.dtype]
            report.agreements.append(check(name, found, exact, tolerance, work=where, reference="float32"))
            modules[name] = module
    steps = {name: work.training(module) for name, module in modules.items()}
    memory = {name: measure_memory(step, device) for name, step in steps.items()}
    syncs = {name: count_synchronisations(step, device) for name, step in steps.items()}
    timings = race([Contestant(name, step) for name, step in steps.items()], device, clock.share())
    auto = chosen_path(layer, work)
    rows: list[Row] = [
        {
            "tokens": size.total,
            "dtype": dtype,
            "who": name,
            "ms": timing,
            "over vmoe auto": timing.over(timings[OURS]),
            "MiB": memory[name],
            "syncs": syncs[name],
        }
        for name, timing in timings.items()
    ]
    note = f"Density {density_of(layer, work):.3f}; vmoe auto is {auto}. {NOTE}"
    report.add(f"{contest.title}, {size}, {dtype}", COLUMNS, rows, note)
    rivals = {name: timing for name, timing in timings.items() if not name.startswith("vmoe")}
    if rivals and size.total > SMALL:
        best = min(rivals, key=lambda name: rivals[name].median)
        measured = timings[OURS].over(rivals[best]).median
        report.target(f"vmoe over {best}: {where}", contest.best_at_most[device.type], measured)


def invite(
    report: Report, name: str, make: Make, layer: MoE, work: Work, where: str
) -> tuple[Rival, dict[str, Tensor]] | None:
    """A rival with the layer's weights and what it computes; None, with the reason, if it cannot run here."""
    try:
        rival = make(layer).to(work.x.dtype)
        outcome = work.outcome(rival)
    except Exception as error:  # other people's code raises what it likes
        report.skip(f"{where}: {name}", f"{type(error).__name__}: {error}")
        return None
    own = dict(layer.named_parameters())
    weights = rival.translate(dict(rival.named_parameters()))
    if weights.keys() != own.keys() or any(not weights[key].equal(own[key]) for key in own):
        raise DisagreementError(f"{where}: {name} has other weights than vmoe")
    found = {key: outcome.pop(key) for key in ("y", "x")}
    return rival, as_gradients(found | rival.translate(outcome))


def gathered_bytes(layer: MoE, size: Size) -> int:
    """What a copy of its expert's weights for every pair takes, and its gradient."""
    assert isinstance(layer.gate.spec, TopK)
    pairs = size.total * layer.gate.spec.k
    return 2 * pairs * layer.params_per_pair * next(layer.parameters()).element_size()


if __name__ == "__main__":
    main(sys.argv[1:])
