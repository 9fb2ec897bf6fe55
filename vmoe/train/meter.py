"""What training steps add up to, and the lines that tell of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vmoe.moe import LoadFigures, LoadStats, Record, mean_figures
from vmoe.moe.collective import sum_over_processes
from vmoe.moe.counts import LoadCounts

from .loaders import Batch
from .memory import MemoryOfLines
from .progress import Progress
from .state import Parts, TrainState

SHORT_NAMES = {"balance_coefficient": "λ"}  # of the log in the line for people


class SinceLog(NamedTuple):
    """Mean losses, units a second, waiting, memory and what experts served since the last line, over all processes.

    gradient_norm: the mean over steps that were taken. left_out: steps that were not, since something was not finite;
    the means are without them, and None where no step was taken.
    data_wait, data_wait_max: the share of the time that processes waited for a batch, their mean and the largest.
    memory: of the process that takes most (`MemoryOfLines`).
    routing: figures of each MoE layer, by its name; empty where nothing was counted.
    """

    loss: float | None
    balance_loss: float | None
    gradient_norm: float | None
    left_out: int
    units_per_second: float
    data_wait: float
    data_wait_max: float
    memory: float
    routing: dict[str, LoadFigures]
    served: dict[str, dict[str, Any]]


class Line:
    """What the next line of the log is made of, on this process; on the device, until it is asked for.

    losses (2,): sums over micro-batches of task and balance loss; pending (2,): of the step that is not concluded.
    norms (): sum over steps. units, seconds, waited: of this process, while it trained.
    """

    def __init__(self, device: torch.device):
        self.losses, self.pending, self.norms = (torch.zeros(size, device=device) for size in (2, 2, ()))
        self.batches, self.pending_batches = 0, 0
        self.steps, self.left_out = 0, 0
        self.units, self.seconds, self.waited = 0, 0.0, 0.0

    def close_step(self, norm: Tensor, *, taken: bool) -> None:
        """Count the losses since the last call, or leave them out."""
        if taken:
            self.losses += self.pending
            self.norms += norm
            self.batches += self.pending_batches
            self.steps += 1
        else:
            self.left_out += 1
        self.pending.zero_()
        self.pending_batches = 0


class Meter:
    """What training steps add up to. Counts stay on the device until they are asked for.

    Its clock runs between `start` and `settle`.
    """

    def __init__(self, parts: Parts, model: nn.Module):
        self.parts = parts
        self.device = parts.processes.device
        self.rows = {name: torch.zeros((), dtype=torch.int64, device=self.device) for name in parts.cost.layers}
        self.loads = LoadStats(model) if parts.config.train.routing_every else None
        self.samples: Counter[torch.Size] = Counter()  # of this process, by their shape
        self.memory = MemoryOfLines(self.device)
        self.line = Line(self.device)
        self.seconds = 0.0
        self.start()

    def start(self) -> None:
        """Let the clock run from now on."""
        self.since = time.perf_counter()

    def _tick(self) -> None:
        """Count the time until now."""
        now = time.perf_counter()
        self.seconds += now - self.since
        self.line.seconds += now - self.since
        self.since = now

    def read(self, batches: Iterator[Batch]) -> Batch:
        """The next batch. The time until it is here is waiting, though a GPU may still work on what came before."""
        start = time.perf_counter()
        batch = next(batches)
        self.line.waited += time.perf_counter() - start
        return batch

    def add(
        self, task_loss: Tensor, balance_loss: Tensor | float, routings: Record, *, shape: torch.Size, step: int
    ) -> None:
        """Count one micro-batch of this process. shape: (B, …), of its inputs. step: the number of its optimizer step,
        from 0.
        """
        self.line.pending[0] += task_loss.detach()
        self.line.pending[1] += balance_loss.detach() if isinstance(balance_loss, Tensor) else balance_loss
        self.line.pending_batches += 1
        self.line.units += shape[0] * self.parts.task.units_per_sample
        self.samples[shape[1:]] += shape[0]
        for name, routing in routings.items():
            self.rows[name] += routing.count_rows()
        every = self.parts.config.train.routing_every
        if self.loads is not None and every is not None and (step + 1) % every == 0:
            self.loads.update(routings)

    def close_step(self, norm: Tensor, *, taken: bool) -> None:
        """Count a step's losses and the norm () of its gradients, or, where it is not taken, that it was left out."""
        self.line.close_step(norm, taken=taken)

    def since_log(self) -> SinceLog:
        """What happened since this was last asked. Every process asks."""
        self._tick()
        line, seconds = self.line, max(self.line.seconds, 1e-9)
        sums = torch.cat([line.losses, line.norms[None]]).tolist()  # here the device is waited for
        numbers = [*sums, line.batches, line.steps, line.units / seconds, line.waited / seconds]
        *of_each, memory = zip(*self._of_each([*numbers, self.memory.since_last()]), strict=True)
        task, balance, norms, batches, steps, rate, waits = of_each
        self.line = Line(self.device)
        return SinceLog(
            mean_of(task, batches),
            mean_of(balance, batches),
            mean_of(norms, steps),
            line.left_out,
            sum(rate),
            fmean(waits),
            max(waits),
            max(memory),
            *self._routing_since_log(),
        )

    def _of_each(self, numbers: list[float]) -> list[list[float]]:
        """These numbers of every process, in one exchange."""
        processes = self.parts.processes
        table = torch.zeros(processes.world, len(numbers), dtype=torch.float64, device=processes.device)
        table[processes.rank] = torch.tensor(numbers, dtype=torch.float64)
        rows: list[list[float]] = sum_over_processes(table).tolist()
        return rows

    def _routing_since_log(self) -> tuple[dict[str, LoadFigures], dict[str, dict[str, Any]]]:
        if self.loads is None:
            return {}, {}
        self.loads.all_reduce()
        counted = {name: counts for name, counts in self.loads.layers.items() if int(counts.tokens)}
        served = describe_served(counted)
        figures = {name: counts.figures() for name, counts in counted.items()}
        self.loads.clear()
        return figures, served

    def settle(self, state: TrainState) -> None:
        """Stop the clock, and move what was done, over all processes, to the state: units, seconds and FLOPs."""
        self._tick()
        world = self.parts.processes.world
        rows = {name: int(sum_over_processes(count)) for name, count in self.rows.items()}
        units = self.samples.total() * self.parts.task.units_per_sample
        fixed = sum(count * self.parts.train_costs[shape].fixed_train_flops for shape, count in self.samples.items())
        state.train_seconds += self.seconds
        state.train_units += units * world
        state.train_flops += fixed * world + self.parts.cost.train_flops_on_rows(rows)
        self.seconds = 0.0
        self.samples.clear()
        for count in self.rows.values():
            count.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What the next line has of steps so far; every process asks. A run that goes on writes the line that it would
        have written, but for its times.
        """
        line, loads = self.line, deepcopy(self.loads)
        numbers = [*line.losses.tolist(), float(line.norms), line.batches, line.steps]
        served = {}
        if loads is not None:
            loads.all_reduce()
            served = {name: counts.tensors() for name, counts in loads.layers.items()}
        return {"of_each": self._of_each(numbers), "left_out": line.left_out, "loads": served}

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Go on with such a line: each process with what it had, or, where they are others, the first with all."""
        processes, line, of_each = self.parts.processes, self.line, stored["of_each"]
        line.left_out = stored["left_out"]
        own = [0.0] * len(of_each[0])
        if len(of_each) == processes.world:
            own = of_each[processes.rank]
        elif processes.first:
            own = [sum(numbers) for numbers in zip(*of_each, strict=True)]
        *losses, norms, batches, steps = own
        line.losses += torch.tensor(losses, device=self.device)
        line.norms += norms
        line.batches, line.steps = int(batches), int(steps)
        if self.loads is not None and processes.first:
            for name, counts in stored["loads"].items():
                for key, tensor in self.loads.layers[name].tensors().items():
                    tensor.copy_(counts[key])


def mean_of(sums: Sequence[float], numbers: Sequence[float]) -> float | None:
    """The mean of everything that each process has a sum of, and so many numbers in it; None where there is nothing."""
    return sum(sums) / sum(numbers) if sum(numbers) else None


def log_training(state: TrainState, parts: Parts, meter: Meter, progress: Progress) -> None:
    """A line for people and one for metrics.jsonl."""
    since = meter.since_log()
    rate_of_learning = max(group["lr"] for group in state.optimizer.param_groups)
    balance = {name: float(value) for name, value in state.balance.figures().items()}
    parts.folder.log(
        {
            "kind": "train",
            "step": state.step,
            "epoch": state.step / parts.steps_per_epoch,
            "loss": since.loss,
            "balance_loss": since.balance_loss,
            "gradient_norm": since.gradient_norm,
            "left_out": since.left_out,
            "lr": rate_of_learning,
            f"{parts.task.UNIT}s_per_second": since.units_per_second,
            "data_wait": since.data_wait,
            "data_wait_max": since.data_wait_max,
            meter.memory.key: since.memory,
            **balance,
            "routing": mean_figures(since.routing) if since.routing else None,
            "layers": since.served,
        }
    )
    figures = [
        f"step {state.step}",
        "no step taken" if since.loss is None else f"loss {since.loss:.4f}",
        f"lr {rate_of_learning:.2e}",
        f"{since.units_per_second:,.0f} {parts.task.SHORT}/s",
        f"data wait {since.data_wait:.0%}",
        f"{since.memory:.1f} GiB",
        *([describe_routing(mean_figures(since.routing))] if since.routing else []),
        *(f"{SHORT_NAMES.get(name, name)} {value:.3g}" for name, value in balance.items()),
    ]
    progress.figures(", ".join(figures))


def describe_routing(mean: Mapping[str, float | None]) -> str:
    """The figures of routing that a run is watched by, means over layers, in a few words."""
    return (
        f"entropy {mean['entropy']:.3f}, largest load {mean['load_max']:.1%}, dead {mean['dead']:.1%},"
        f" density {mean['density']:.3f}"
    )


def describe_served(layers: Mapping[str, LoadCounts]) -> dict[str, dict[str, Any]]:
    """What each layer's experts served, for metrics.jsonl: counts, and what they say of the layer."""
    served = {}
    for name, counts in layers.items():
        figures = counts.figures()
        served[name] = {
            "tokens": int(counts.tokens),
            "pairs": counts.pairs.tolist(),
            **{key: getattr(figures, key) for key in ("entropy", "load_max", "dead", "density")},
        }
    return served
