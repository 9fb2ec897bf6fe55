"""How a model lies on several processes, and what goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from vmoe.moe.spec import Dense, MoESpec, Soft

from .base import Count, Section

# Optimizers that update each entry of a weight by its own gradient, so that it does not matter which entries lie where.
ENTRYWISE = (
    *("sgd", "momentum", "adam", "adamw", "nadam", "nadamw", "radam", "radamw", "adamax", "adagrad", "adadelta"),
    *("rmsprop", "rmsproptf", "lion"),
)


class ParallelConfig(Section):
    """How the model lies on the processes of a run; docs/parallel.md. With one process it lies there whole.

    strategy: ``ddp`` keeps a copy on each, ``fsdp`` cuts every block's weights into parts and gathers them while the
    block runs. experts: the number of processes that hold a layer's experts between them; with 1 each holds all.
    """

    strategy: Literal["ddp", "fsdp"] = "ddp"
    experts: Count = 1

    @property
    def spreads(self) -> bool:
        """Whether processes hold different parts of the model."""
        return self.strategy != "ddp" or self.experts > 1

    @property
    def chosen(self) -> str:
        """For errors: the key that spreads the model, and its value."""
        return f"parallel.experts {self.experts}" if self.experts > 1 else f"parallel.strategy {self.strategy!r}"


def refusals(
    parallel: ParallelConfig, moe: MoESpec, *, optimizer: str, compiled: bool, precision: str
) -> Iterator[str]:
    """What of a config cannot go with how its model is to lie, each in an error's words."""
    experts, kind = parallel.experts, moe.gate.kind
    if experts > 1 and isinstance(moe.gate, Dense):
        yield f"parallel.experts is {experts} with moe.gate {kind!r}; allowed: 1, for a model that has no MoE layers"
    elif experts > 1 and isinstance(moe.gate, Soft):
        yield f"parallel.experts is {experts} with moe.gate {kind!r}; allowed: 1, since tokens fill all experts' slots"
    elif moe.num_experts % experts:
        divisors = ", ".join(str(each) for each in range(1, moe.num_experts + 1) if moe.num_experts % each == 0)
        yield f"parallel.experts is {experts} with moe.num_experts {moe.num_experts}; allowed: {divisors}"
    if not parallel.spreads:
        return
    replicated = "parallel.strategy ddp with parallel.experts 1"
    if optimizer not in ENTRYWISE:
        yield (
            f"optimizer.kind is {optimizer!r} with {parallel.chosen}; allowed: {', '.join(ENTRYWISE)}, which need no"
            f" norm or statistics of a whole weight; or {replicated}"
        )
    if compiled:
        yield f"train.compile is true with {parallel.chosen}; allowed: false, or {replicated}"
    if precision == "float16":
        yield (
            f"train.precision is 'float16' with {parallel.chosen}; allowed: float32, tf32, bfloat16, or {replicated}:"
            " processes with different gradients would not agree on which steps overflow"
        )
