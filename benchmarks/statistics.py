"""What routing statistics cost: a training step that counts what experts serve over one that does not, and an
evaluation that counts everything over one that keeps no books at all.

Models and steps are those of `train_step`. Beside the ratios, in which the noise of whole steps is, stands the counting
itself, timed alone on the routing of the same batch, and its share of the step or forward without it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.harness import Clock, Contestant, Timing, race
from benchmarks.report import Report, Row, arguments, reporting
from benchmarks.train_step import AUTOCAST, GATES, SUBJECTS, Training
from vmoe.moe import LoadStats, Record, RoutingStats, evaluating, record

SHARE_AT_MOST = 0.02
BUDGET = {"cpu": 100, "cuda": 100}
MODELS = ("deit_tiny", "deit_small", "gpt2")
COLUMNS = ("model", "gate", "ms", "with counting", "counting, ms", "its share")


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    with reporting(options) as report:
        clock = Clock(options.budget, 2 * len(options.models) * len(options.gates))
        training: list[Row] = []
        evaluation: list[Row] = []
        try:
            for name in options.models:
                for gate in options.gates:
                    training.append(measure_training(report, name, gate, clock))
                    evaluation.append(measure_evaluation(report, name, gate, clock))
                    print(f"{name}, {gate}: done", flush=True)
        finally:
            report.add("Training steps that count what experts serve", COLUMNS, training)
            report.add("Forwards of an evaluation that count everything", COLUMNS, evaluation)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments("statistics", __doc__, BUDGET)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--gates", nargs="+", choices=list(GATES), default=["topk", "routing_free"])
    return parser.parse_args(argv)


def measure_training(report: Report, name: str, gate: str, clock: Clock) -> Row:
    """A step without counting, the same with it, and the counting alone."""
    plain, counting = (build(report.device, name, gate) for _ in range(2))
    stats = LoadStats(counting.model)
    counting.watch = stats.update
    with torch.no_grad(), record(plain.model) as routings:
        plain.model(plain.batch[0])
    detached = {layer: routing.detach() for layer, routing in routings.items()}
    steps: dict[str, Callable[[], object]] = {
        "plain": plain.step,
        "counting": counting.step,
        "alone": lambda: stats.update(detached),
    }
    timings = race([Contestant(one, step) for one, step in steps.items()], report.device, clock.share())
    return row_of(report, name, gate, timings, SHARE_AT_MOST, "a training step")


@torch.no_grad()
def measure_evaluation(report: Report, name: str, gate: str, clock: Clock) -> Row:
    """A forward without any books, the same counted with labels and positions, and the counting alone."""
    training = build(report.device, name, gate)
    model, (inputs, labels) = training.model, training.batch
    labels = labels.flatten() if SUBJECTS[name].unit == "images" else inputs.flatten()
    stats = RoutingStats(model, int(labels.max()) + 1, positions=True)

    def forward() -> Record:
        with record(model) as routings:
            model(inputs)
        return routings

    with evaluating(model), autocast(report.device):
        routings = forward()
        steps: dict[str, Callable[[], object]] = {
            "plain": lambda: model(inputs),
            "counting": lambda: stats.update(forward(), labels),
            "alone": lambda: stats.update(routings, labels),
        }
        timings = race([Contestant(one, step) for one, step in steps.items()], report.device, clock.share())
    return row_of(report, name, gate, timings, None, "an evaluation's forward")


def build(device: torch.device, name: str, gate: str) -> Training:
    """A model that always begins alike, with its batch."""
    subject = SUBJECTS[name]
    torch.manual_seed(0)
    inputs, labels = subject.draw(subject.samples[device.type], subject.tokens[device.type])
    model: nn.Module = subject.build(GATES[gate]).to(device)
    batch: tuple[Tensor, Tensor] = (inputs.to(device), labels.to(device))
    return Training(model, batch, AUTOCAST[device.type])


def autocast(device: torch.device) -> torch.autocast:
    dtype = AUTOCAST[device.type]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def row_of(report: Report, name: str, gate: str, timings: dict[str, Timing], at_most: float | None, what: str) -> Row:
    """at_most: the share that is wished for, if one is."""
    subject, kind = SUBJECTS[name], report.device.type
    shape = f"{name}, {subject.samples[kind]}×{subject.tokens[kind]} tokens"
    share = timings["alone"].over(timings["plain"])
    if at_most is not None:
        report.target(f"counting's share of {what} with {gate}, {shape}", at_most, share.median)
    return {
        "model": shape,
        "gate": gate,
        "ms": timings["plain"],
        "with counting": timings["counting"].over(timings["plain"]),
        "counting, ms": timings["alone"],
        "its share": share,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
