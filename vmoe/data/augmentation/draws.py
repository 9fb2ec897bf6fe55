"""What is drawn for a batch, on the host: a program for each image, as timm draws it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .jitter import draw_jitters
from .policy import Operation, Policy
from .program import Program, Step

BLUR_FROM, BLUR_TO = 0.1, 2.0  # pixels: timm's gaussian_blur_rand, the second times its factor


def draw_programs(policy: Policy, samples: int, generator: torch.Generator | None = None) -> list[Program]:
    """A program an image. How much is drawn does not depend on what is drawn."""

    def uniform() -> Tensor:
        return torch.rand(samples, policy.layers, generator=generator, dtype=torch.float64)

    chosen = draw_operations(policy, samples, generator)
    levels = draw_levels(policy, chosen, generator).tolist()
    applied = (uniform() <= policy.probability).tolist()
    negated = (uniform() > 0.5).tolist()
    cubic = (uniform() < policy.cubic).tolist()
    within = uniform().tolist()
    indices = chosen.tolist()

    def step(i: int, j: int) -> Step:
        operation = policy.operations[indices[i][j]]
        return step_of(operation, levels[i][j], negated[i][j], cubic[i][j], within[i][j])

    layers = range(policy.layers)
    programs = [tuple(step(i, j) for j in layers if applied[i][j]) for i in range(samples)]
    jitters = draw_jitters(policy.jitter, samples, generator) if policy.jitter else [()] * samples
    return [program + jitter for program, jitter in zip(programs, jitters, strict=True)]


def draw_operations(policy: Policy, samples: int, generator: torch.Generator | None) -> Tensor:
    """(samples, layers), the indices of operations; of one image all different where operations have weights."""
    if policy.weights is None:
        return torch.randint(len(policy.operations), (samples, policy.layers), generator=generator)
    weights = torch.tensor(policy.weights, dtype=torch.float64).expand(samples, -1)
    return weights.multinomial(policy.layers, replacement=False, generator=generator)


def draw_levels(policy: Policy, chosen: Tensor, generator: torch.Generator | None) -> Tensor:
    """The magnitudes of chosen operations, with their noise, in [0, ceiling]."""
    levels = torch.tensor([float(operation.magnitude) for operation in policy.operations], dtype=torch.float64)[chosen]
    if math.isinf(policy.spread):
        levels = levels * torch.rand(chosen.shape, generator=generator, dtype=torch.float64)
    elif policy.spread:
        levels = levels + policy.spread * torch.randn(chosen.shape, generator=generator, dtype=torch.float64)
    return levels.clamp(0, policy.ceiling)


def step_of(operation: Operation, level: float, negated: bool, cubic: bool, within: float) -> Step:
    """within: where in the range of what timm draws as it applies an operation, in [0, 1)."""
    argument = operation.argument(level, negated)
    if operation.kind == "gaussian_blur_rand":
        return Step("gaussian_blur", BLUR_FROM + (BLUR_TO * argument - BLUR_FROM) * within)
    return Step(operation.kind, argument, cubic)
