"""The peak memory of one step, from a trace of its allocations.

Measured are the bytes beyond what lay allocated before the step, at the moment when they are most: what torch's
allocator hands out, temporaries inside custom operators included, but not what a library gets elsewhere (oneDNN's or
cuBLAS's workspaces outside torch). On a CPU the trace is torch's profiler's, on a GPU the caching allocator's history.
The step is traced apart from any that is timed, since tracing slows it down.

Gradients of parameters are told apart: they are allocations of the step that are alive at its end and hold a gradient
that it returns. Leaving those out gives what grows with the tokens (and what lies in passing beside it, such as copies
of weights in another type, or gradients of single experts before they are stacked), whatever the number of experts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

Gradients = Iterable[Tensor | None]


class Change(NamedTuple):
    """Bytes allocated at an address, or, below 0, freed."""

    address: int
    size: int


@dataclass(frozen=True)
class Memory:
    """Bytes at the highest. total: of all. kept: with the parameters' gradients left out."""

    total: int
    kept: int


def measure_memory(step: Callable[[], Gradients], device: torch.device) -> Memory:
    """The peaks of a step that returns its parameters' gradients and leaves nothing else behind."""
    trace = trace_cuda if device.type == "cuda" else trace_cpu
    changes, gradients = trace(step)
    owned = {gradient.untyped_storage().data_ptr() for gradient in gradients if gradient is not None}
    return Memory(peak(changes), peak(list(without(changes, owned))))


def peak(changes: Iterable[Change]) -> int:
    """The largest sum of the changes so far."""
    return max(accumulate((change.size for change in changes), initial=0))


def without(changes: list[Change], addresses: set[int]) -> Iterator[Change]:
    """The changes but those allocations at these addresses which are never freed."""
    last = {change.address: i for i, change in enumerate(changes) if change.address in addresses}
    surviving = {i for i in last.values() if changes[i].size > 0}
    return (change for i, change in enumerate(changes) if i not in surviving)


def trace_cpu(step: Callable[[], Gradients]) -> tuple[list[Change], list[Tensor | None]]:
    """What a step allocates and frees on the CPU, in order of time, and what it returns."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        returned = list(step())
    tree = profiler.profiler.kineto_results.experimental_event_tree()
    events = [event for event in flatten(tree) if event.tag == _EventType.Allocation]
    events.sort(key=lambda event: event.start_time_ns)
    fields = [event.extra_fields for event in events if event.extra_fields.device.type == "cpu"]
    return [Change(field.ptr, field.alloc_size) for field in fields], returned


def flatten(events: Iterable[Any]) -> Iterator[Any]:
    """A profiler's tree of events, as a sequence."""
    for event in events:
        yield event
        yield from flatten(event.children)


def trace_cuda(step: Callable[[], Gradients]) -> tuple[list[Change], list[Tensor | None]]:
    """What a step allocates and frees on the current GPU, in order of time, and what it returns."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.memory._record_memory_history(context=None, max_entries=10**7)
    try:
        returned = list(step())
        torch.cuda.synchronize()
        entries = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    signs = {"alloc": 1, "free_completed": -1}
    changes = [
        Change(entry["addr"], signs[entry["action"]] * entry["size"]) for entry in entries if entry["action"] in signs
    ]
    counted = torch.cuda.max_memory_allocated() - before
    if abs(peak(changes) - counted) > 0.02 * counted + 2**20:  # the allocator counts in blocks of 512 bytes
        warnings.warn(f"the trace's peak is {peak(changes)} bytes, the allocator's own {counted}", stacklevel=2)
    return changes, returned
