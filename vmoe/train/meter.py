"""What training steps add up to, and the lines that tell of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
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

    data_wait, data_wait_max: the share of the time that processes waited for a batch, their mean and the largest.
    memory: of the process that takes most (`MemoryOfLines`).
    routing: figures of each MoE layer, by its name; empty where nothing was counted.
    """

    loss: float
    balance_loss: float
    units_per_second: float
    data_wait: float
    data_wait_max: float
    memory: float
    routing: dict[str, LoadFigures]
    served: dict[str, dict[str, Any]]


class Meter:
    """What the steps up to the next stop add up to. Counts stay on the device until they are asked for."""

    def __init__(self, parts: Parts, model: nn.Module):
        self.parts = parts
        device = parts.processes.device
        self.rows = {name: torch.zeros((), dtype=torch.int64, device=device) for name in parts.cost.layers}
        self.loads = LoadStats(model) if parts.config.train.routing_every else None
        self.samples: Counter[torch.Size] = Counter()  # of this process, by their shape
        self.memory = MemoryOfLines(device)
        self.waited = 0.0  # seconds, for batches
        self.start = time.perf_counter()
        self.losses = torch.zeros(2, device=device)  # task and balance, since the last line
        self.batches_since_log = 0
        self.units_at_log, self.waited_at_log, self.time_at_log = 0, 0.0, self.start

    def read(self, batches: Iterator[Batch]) -> Batch:
        """The next batch. The time until it is here is waiting, though a GPU may still work on what came before."""
        start = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - start
        return batch

    def add(
        self, task_loss: Tensor, balance_loss: Tensor | float, routings: Record, *, shape: torch.Size, step: int
    ) -> None:
        """Count one micro-batch of this process. shape: (B, …), of its inputs. step: the number of its optimizer step,
        from 0.
        """
        self.losses[0] += task_loss.detach()
        self.losses[1] += balance_loss.detach() if isinstance(balance_loss, Tensor) else balance_loss
        self.batches_since_log += 1
        self.samples[shape[1:]] += shape[0]
        for name, routing in routings.items():
            self.rows[name] += routing.count_rows()
        every = self.parts.config.train.routing_every
        if self.loads is not None and every is not None and (step + 1) % every == 0:
            self.loads.update(routings)

    @property
    def units(self) -> int:
        """Of the steps so far, over all processes."""
        return self.samples.total() * self.parts.task.units_per_sample * self.parts.processes.world

    def since_log(self, step: int) -> SinceLog:
        """What happened since this was last asked. Every process asks.

        Raises `FloatingPointError`, on all processes, if a loss was not finite.
        """
        means = (self.losses / max(self.batches_since_log, 1)).tolist()  # here the device is waited for
        now = time.perf_counter()
        seconds = max(now - self.time_at_log, 1e-9)
        waited = (self.waited - self.waited_at_log) / seconds
        task, balance, waits, memory = zip(*self._of_each([*means, waited, self.memory.since_last()]), strict=True)
        loss, balance_loss = fmean(task), fmean(balance)
        if not math.isfinite(loss + balance_loss):
            raise FloatingPointError(
                f"by step {step} the loss is {loss}, with a balance loss of {balance_loss}; the last checkpoint is"
                f" {self.parts.folder.last}. Try a smaller optimizer.lr, an optimizer.clip_grad, or"
                " train.precision=float32"
            )
        rate = (self.units - self.units_at_log) / seconds
        self.losses.zero_()
        self.batches_since_log = 0
        self.units_at_log, self.waited_at_log, self.time_at_log = self.units, self.waited, now
        return SinceLog(loss, balance_loss, rate, fmean(waits), max(waits), max(memory), *self._routing_since_log())

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

    def close(self, state: TrainState) -> None:
        """Add what was done, over all processes, to the state: units, seconds and FLOPs.

        Raises `FloatingPointError` if a loss since the last line was not finite.
        """
        self.since_log(state.step)
        rows = {name: int(sum_over_processes(count)) for name, count in self.rows.items()}
        state.train_seconds += time.perf_counter() - self.start
        state.train_units += self.units
        fixed = sum(count * self.parts.train_costs[shape].fixed_train_flops for shape, count in self.samples.items())
        state.train_flops += fixed * self.parts.processes.world + self.parts.cost.train_flops_on_rows(rows)


def log_training(state: TrainState, parts: Parts, meter: Meter, progress: Progress) -> None:
    """A line for people and one for metrics.jsonl."""
    since = meter.since_log(state.step)
    rate_of_learning = max(group["lr"] for group in state.optimizer.param_groups)
    balance = {name: float(value) for name, value in state.balance.figures().items()}
    parts.folder.log(
        {
            "kind": "train",
            "step": state.step,
            "epoch": state.step / parts.steps_per_epoch,
            "loss": since.loss,
            "balance_loss": since.balance_loss,
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
        f"loss {since.loss:.4f}",
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
