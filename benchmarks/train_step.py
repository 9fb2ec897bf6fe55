"""What MoE layers cost in the training of a whole model: a step with them over a step of the dense model.

DeiT-Ti and S at 224², and GPT-2 small, with MoE layers in every second block, at equal active FLOPs.

A step sets gradients to zero and runs forward, loss with the gate's balance loss, backward, fused AdamW and the
balance's own step, in float32 on a CPU and under bfloat16 autocast on a GPU. Its learning rate is so small that routing
stays as it is at the start, where Routing-Free's thresholds are set for its target density, layer by layer.

Memory is that of another step, of forward and backward alone, from gradients that are None: the bytes at the highest
beyond what lay allocated before, and of these not the parameters' gradients. So neither parameters nor gradients nor
the optimizer's state count, whatever the number of experts; activations do, and what passes by: copies of weights in
bfloat16, and gradients before they have reached their parameter.

Before, each MoE layer is compared with its reference path, outputs and every gradient, on the input that it gets in the
model: the rest of the model is the same code, and a whole model would route some tokens elsewhere after rounding.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.agree import TOLERANCE, check
from benchmarks.harness import Clock, Contestant, count_synchronisations, race
from benchmarks.layers import Work, as_gradients, set_density, with_path
from benchmarks.memory import measure_memory
from benchmarks.report import Report, Row, arguments, reporting
from vmoe.backbones import backbone_of_name
from vmoe.moe import (
    Dense,
    GateSpec,
    MoE,
    MoESpec,
    Record,
    RoutingFree,
    SelfRouting,
    TopK,
    balance_for,
    moe_layers,
    record,
)

GATES: dict[str, GateSpec] = {"topk": TopK(), "self": SelfRouting(), "routing_free": RoutingFree()}
LAYERS = "every2"
RATE = 1e-6
AUTOCAST = {"cpu": None, "cuda": torch.bfloat16}
TIME_AT_MOST = {"cpu": 1.10, "cuda": 1.15}
MEMORY_AT_MOST = 1.25
BUDGET = {"cpu": 120, "cuda": 200}
COLUMNS = ("model", "gate", "ms", "over dense", "a second", "MiB", "MiB over dense", "density", "syncs")
NOTE = (
    "a second: images or tokens. MiB: of forward and backward, without parameters, their gradients and the optimizer."
)

Batch = tuple[Tensor, Tensor]


class Tokens(nn.Module):
    """GPT-2 that gives logits alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens, use_cache=False).logits
        return logits


@dataclass(frozen=True)
class Subject:
    """A model and its batches. samples, tokens: on a CPU and on a GPU; compiled: gates with a compiled row there."""

    build: Callable[[GateSpec | None], nn.Module]
    draw: Callable[[int, int], Batch]
    gates: dict[str, tuple[str, ...]]
    samples: dict[str, int]
    tokens: dict[str, int]
    unit: str
    compiled: tuple[str, ...] = ()

    def units(self, device: str) -> int:
        """Images or tokens of a batch."""
        return self.samples[device] * (1 if self.unit == "images" else self.tokens[device])


def build(name: str, gate: GateSpec | None) -> nn.Module:
    """A model of that name, dense or with MoE layers."""
    spec = MoESpec(gate=Dense() if gate is None else gate, layers=LAYERS)
    model: nn.Module = backbone_of_name(name).create_model(name, spec)
    return model


def build_gpt2(gate: GateSpec | None) -> nn.Module:
    """GPT-2 small, dense or with MoE layers, without dropout."""
    return Tokens(build("gpt2", gate))


def draw_images(count: int, _: int) -> Batch:
    return torch.randn(count, 3, 224, 224), torch.randint(1000, (count,))


def draw_text(count: int, tokens: int) -> Batch:
    """Tokens and their successors."""
    text = torch.randint(50257, (count, tokens + 1))
    return text[:, :-1], text[:, 1:]


ALL = ("topk", "self", "routing_free")
SUBJECTS = {
    "deit_tiny": Subject(
        partial(build, "deit_tiny_patch16_224"),
        draw_images,
        {"cpu": ALL, "cuda": ALL},
        {"cpu": 8, "cuda": 256},
        {"cpu": 197, "cuda": 197},
        "images",
    ),
    "deit_small": Subject(
        partial(build, "deit_small_patch16_224"),
        draw_images,
        {"cpu": ALL, "cuda": ALL},
        {"cpu": 8, "cuda": 256},
        {"cpu": 197, "cuda": 197},
        "images",
        compiled=("dense", "topk"),
    ),
    "gpt2": Subject(
        build_gpt2,
        draw_text,
        {"cpu": ("topk",), "cuda": ALL},
        {"cpu": 1, "cuda": 8},
        {"cpu": 256, "cuda": 1024},
        "tokens",
    ),
}


@dataclass
class Training:
    """A model with what a training step of it needs. watch: sees the routing of every forward."""

    model: nn.Module
    batch: Batch
    autocast: torch.dtype | None
    watch: Callable[[Record], None] | None = None

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
        self.balance = balance_for(self.model)

    def gradients(self, forward: Callable[[Tensor], Tensor] | None = None) -> Iterator[Tensor | None]:
        """Forward and backward from gradients of None; the parameters' gradients."""
        inputs, labels = self.batch
        self.optimizer.zero_grad(set_to_none=True)
        with record(self.model) as routings:
            with torch.autocast(inputs.device.type, self.autocast, enabled=self.autocast is not None):
                logits = (self.model if forward is None else forward)(inputs)
            loss = functional.cross_entropy(logits.flatten(0, -2), labels.flatten()) + self.balance(routings)
            if self.watch is not None:
                self.watch(routings)
        loss.backward()
        return (parameter.grad for parameter in self.model.parameters())

    def step(self, forward: Callable[[Tensor], Tensor] | None = None) -> None:
        """One step of training; forward: the model, compiled."""
        self.gradients(forward)
        self.optimizer.step()
        self.balance.step()


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    with reporting(options) as report:
        clock = Clock(options.budget, len(options.models))
        rows: list[Row] = []
        try:
            for name in options.models:
                rows += measure(report, name, options, clock)
                print(f"{name}: done", flush=True)
        finally:
            columns = (*COLUMNS, "eager over compiled") if options.compile else COLUMNS
            report.add("Training steps over the dense model's", columns, rows, NOTE)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments("train_step", __doc__, BUDGET)
    parser.add_argument("--models", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--gates", nargs="+", choices=list(GATES), help="(default: all, on a CPU fewer for gpt2)")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="rows of torch.compile's models, where there are some (default: on a GPU)",
    )
    options = parser.parse_args(argv)
    if options.compile is None:
        options.compile = options.device == "cuda"
    return options


def measure(report: Report, name: str, options: argparse.Namespace, clock: Clock) -> list[Row]:
    """Rows of one model: dense, each gate, and some of them compiled."""
    device, subject = report.device, SUBJECTS[name]
    torch.manual_seed(0)
    inputs, labels = subject.draw(subject.samples[device.type], subject.tokens[device.type])
    batch = inputs.to(device), labels.to(device)
    trainings: dict[str, Training] = {}
    for gate in ("dense", *(options.gates or subject.gates[device.type])):
        torch.manual_seed(0)
        model = subject.build(GATES.get(gate)).to(device)
        trainings[gate] = Training(model, batch, AUTOCAST[device.type])
        check_layers(report, f"{name}, {gate}", trainings[gate])
    memory = {gate: measure_memory(training.gradients, device) for gate, training in trainings.items()}
    steps: dict[str, Callable[[], object]] = {gate: training.step for gate, training in trainings.items()}
    if options.compile:
        steps |= {f"{gate} compiled": compiled(trainings[gate]) for gate in subject.compiled if gate in trainings}
    if device.type == "cuda":
        for step in steps.values():
            step()  # makes the optimizer's state and compiles, so that the next one waits for what every step waits for
    syncs = {gate: count_synchronisations(step, device) for gate, step in steps.items()}
    timings = race([Contestant(gate, step) for gate, step in steps.items()], device, clock.share())
    shape = f"{name}, {subject.samples[device.type]}×{subject.tokens[device.type]} tokens"
    rows: list[Row] = []
    for gate, timing in timings.items():
        eager = gate.removesuffix(" compiled")
        row: Row = {
            "model": shape,
            "gate": gate,
            "ms": timing,
            "over dense": timing.over(timings["dense" if gate == eager else "dense compiled"]),
            "a second": subject.units(device.type) / timing.median,
            "syncs": syncs[gate],
            "unit": subject.unit,
        }
        if gate == eager:
            row |= {"MiB": memory[gate], "MiB over dense": memory[gate].kept / memory["dense"].kept}
            row["density"] = density_of(trainings[gate])
        else:
            row["eager over compiled"] = timings[eager].over(timing)
        rows.append(row)
        if gate == eager != "dense":
            report.target(f"step with {gate} over dense, {shape}", TIME_AT_MOST[device.type], row["over dense"].median)
            report.target(f"memory with {gate} over dense, {shape}", MEMORY_AT_MOST, row["MiB over dense"])
    return rows


def compiled(training: Training) -> Callable[[], object]:
    """A step with the model compiled whole."""
    forward: Callable[[Tensor], Tensor] = torch.compile(training.model)
    return lambda: training.step(forward)


def check_layers(report: Report, where: str, training: Training) -> None:
    """Set thresholds for the target density, and compare each MoE layer with its reference path on its own input."""
    layers = dict(moe_layers(training.model))
    seen: dict[str, Tensor] = {}
    autocast = training.autocast
    hooks = [
        layer.register_forward_pre_hook(calibrate_and_keep(seen, name, autocast)) for name, layer in layers.items()
    ]
    inputs, _ = training.batch
    with torch.no_grad(), torch.autocast(inputs.device.type, autocast, enabled=autocast is not None):
        training.model(inputs)
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        work = Work.on(seen[name], autocast)
        found, expected = (as_gradients(work.outcome(module)) for module in (layer, with_path(layer, "reference")))
        tolerance = TOLERANCE[autocast or torch.float32]
        work_name = f"{where}, {name}"
        report.agreements.append(check("auto", found, expected, tolerance, work=work_name, reference="reference path"))


def calibrate_and_keep(seen: dict[str, Tensor], name: str, autocast: torch.dtype | None) -> Callable[..., None]:
    """A hook that runs before a layer: it keeps the input, and sets a Routing-Free layer's density on it."""

    def before(layer: MoE, inputs: tuple[Tensor, ...]) -> None:
        seen[name] = inputs[0].detach()
        if isinstance(layer.gate.spec, RoutingFree):
            set_density(layer, Work.on(seen[name], autocast), layer.gate.spec.target_density)

    return before


@torch.no_grad()
def density_of(training: Training) -> float | None:
    """The share of active pairs in all MoE layers, after the steps that were timed."""
    inputs, _ = training.batch
    with (
        record(training.model) as routings,
        torch.autocast(inputs.device.type, training.autocast, enabled=training.autocast is not None),
    ):
        training.model(inputs)
    shares = [float(routing.active.float().mean()) for routing in routings.values()]
    return sum(shares) / len(shares) if shares else None


if __name__ == "__main__":
    main(sys.argv[1:])
