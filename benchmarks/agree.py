"""Nobody is timed before it agrees: output and every gradient against a reference on equal weights and inputs.

The error is ‖a − b‖ / ‖b‖ in float64, of each tensor apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}

Outcome = Mapping[str, Tensor]
"""The output and the gradients of a step, each by a name that all contestants share."""


class DisagreementError(AssertionError):
    """A contestant computes something else than the reference."""


@dataclass(frozen=True)
class Agreement:
    """How far a contestant is from its reference: the tensor that is farthest, its error and what is allowed."""

    work: str
    contestant: str
    reference: str
    worst: str
    error: float
    tolerance: float


def check(
    contestant: str, found: Outcome, expected: Outcome, tolerance: float, *, work: str, reference: str
) -> Agreement:
    """Compare two outcomes. Raises `DisagreementError` with the contestant's name."""
    if found.keys() != expected.keys():
        raise DisagreementError(f"{work}: {contestant} gives {sorted(found)}, {reference} gives {sorted(expected)}")
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    worst = max(errors, key=lambda name: errors[name] if errors[name] == errors[name] else float("inf"))
    if not errors[worst] <= tolerance:
        raise DisagreementError(
            f"{work}: {contestant} is {errors[worst]:.2g} off {reference} in {worst}; allowed: {tolerance:g}"
        )
    return Agreement(work, contestant, reference, worst, errors[worst], tolerance)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """‖a − b‖ / ‖b‖; where b is 0, ‖a‖."""
    difference = torch.linalg.vector_norm(found.double() - expected.double())
    size = torch.linalg.vector_norm(expected.double())
    return float(difference / size) if size > 0 else float(difference)
