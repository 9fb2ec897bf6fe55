"""A training step reads from its device once, before its update; and how long it waits for data."""

import json
from contextlib import contextmanager
from mmap import mmap

import numpy as np
import pytest
import torch
from memory import tiny_config, tiny_run
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vmoe.train.loop import steps_until, train_until
from vmoe.train.memory import GIB, peak, reserved, resident, start_of_peak
from vmoe.train.meter import Meter

# What reads a tensor's values: by its Python name, and by the operator where the code is not Python's.
READ = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__", "__format__")
READING = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
)
INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)  # by a mask, they count what it selects


class Functions(TorchFunctionMode):
    def __init__(self, read):
        super().__init__()
        self.read = read

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in READ and args and isinstance(args[0], torch.Tensor):
            self.read.append(name)
        return function(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    def __init__(self, read):
        super().__init__()
        self.read = read

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        masks = function in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        if function in READING or masks:
            self.read.append(str(function))
        return function(*args, **(kwargs or {}))


@contextmanager
def watching():
    """The reads of whatever runs within."""
    read = []
    with Functions(read), Operators(read):
        yield read


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("moe.gate=self", "train.accumulate=2", "optimizer.clip_grad=1.0"),
        ("moe.gate.bias_rate=0.01", "train.ema_decay=0.9", "augment.mixup=0.8", "augment.erasing=0.5"),
        ("moe.gate=dense", "train.routing_every=null"),
    ],
    ids=lambda overrides: " ".join(overrides) or "plain",
)
def test_a_step_reads_once_before_its_update(overrides, tmp_path, monkeypatch):
    """Its loss and the norm of its gradient, once all of its forward and backward was given to the device.

    torch's optimizer aside: the step counts that it reads lie in the CPU's memory, on any device.
    """
    state, parts = tiny_run(tiny_config(*overrides), tmp_path)
    state.model.train()
    meter = Meter(parts, state.model)
    with watching() as read:
        monkeypatch.setattr(state.optimizer, "step", lambda: read.append("update"))
        for _ in steps_until(4, state, parts, state.model, meter):
            assert read == ["tolist", "update"]
            read.clear()
        meter.since_log()
    assert "tolist" in read
    assert state.step == 4


def test_the_watch_sees_reads():
    x = torch.arange(3.0)
    for work in (
        lambda: x.sum().item(),
        lambda: float(x[0]),
        lambda: bool(x[0]),
        x.tolist,
        x.cpu,
        x.numpy,
        lambda: x[x > 1],
        lambda: f"{x[0]:.1f}",
        lambda: torch.equal(x, x.clone()),
    ):
        with watching() as read:
            work()
        assert read, work


class Clock:
    """Of whole seconds, which go by where the test says so."""

    def __init__(self):
        self.now = 0

    def perf_counter(self):
        return float(self.now)


def test_the_share_of_the_time_that_a_run_waits_for_data(tmp_path, monkeypatch):
    """A batch is there after 3 seconds, and computed in 1: of 3 + 1 seconds, 3 are waiting. A step's batches are read
    before the update of the step before, so the first line has those of one step more.
    """
    clock = Clock()
    monkeypatch.setattr("vmoe.train.meter.time", clock)
    state, parts = tiny_run(tiny_config("train.log_every=2", "train.accumulate=2"), tmp_path)
    epoch, loss = parts.train_loader.epoch, parts.task.training_loss

    def slow_epoch(number, first=0):
        for batch in epoch(number, first):
            clock.now += 3
            yield batch

    def slow_loss(*arguments):
        clock.now += 1
        return loss(*arguments)

    monkeypatch.setattr(parts.train_loader, "epoch", slow_epoch)
    monkeypatch.setattr(parts.task, "training_loss", slow_loss)
    train_until(5, state, parts, state.model, Meter(parts, state.model))
    lines = [json.loads(line) for line in parts.folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    for line, waiting in zip(lines, (3 * 2 * 3, 2 * 2 * 3), strict=True):  # steps, micro-batches, seconds
        seconds = waiting + 2 * 2 * 1
        assert line["data_wait"] == line["data_wait_max"] == waiting / seconds
        assert line["images_per_second"] == 2 * 8 / seconds
        assert line["resident_gib"] == pytest.approx(resident() / GIB, rel=0.2)


def test_the_peak_of_memory_outlives_what_took_it_until_it_is_counted_anew():
    size, cpu = 2**26, torch.device("cpu")
    before = start_of_peak(cpu)
    with mmap(-1, size) as taken:  # which the kernel has back at the end, whatever the allocator keeps
        np.frombuffer(taken, np.uint8)[:] = 1
        assert resident() >= before + 0.9 * size
    assert peak(cpu) >= before + 0.9 * size
    assert resident() < before + 0.5 * size
    assert reserved(cpu) is None
    start_of_peak(cpu)
    if peak(cpu) > before + 0.5 * size:
        pytest.skip("this kernel does not count the peak anew")
