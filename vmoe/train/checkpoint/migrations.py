"""Earlier formats of checkpoints, each lifted to the one after it when a file is read.

What takes more than the file is left to `TrainState.load`: the optimizer's state, which in format 1 goes by numbers
in place of the parameters' names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Contents = dict[str, Any]

NO_MISHAPS: dict[str, Any] = {
    **{"nonfinite": 0, "left_out_data": 0, "returns": 0, "recent_losses": [], "changed": {}},
    **{"line": None, "processes": None},  # as many as now
}


def from_1(contents: Contents) -> Contents:
    """Format 2 adds `rank` and `digest`, and to the training what counts its mishaps. Format 1 kept the rank of the
    best evaluation so far, which is this state's own in the file that was written because of it.
    """
    training = contents["training"]
    evaluated = training if isinstance(training, Mapping) else {}
    is_own = evaluated.get("evaluated") == evaluated.get("step", -1)
    rank = evaluated.get("best") if is_own else None
    if "optimizer" in evaluated:
        training = {**NO_MISHAPS, **evaluated}
    return {**contents, "format": 2, "rank": rank, "digest": None, "training": training}


MIGRATIONS: dict[int, Callable[[Contents], Contents]] = {1: from_1}
