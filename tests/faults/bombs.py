"""What can befall a process, and where: each is set up in the process itself, before the command starts.

A bomb is a place, a number and a deed: at the so-manieth call of a function of vmoe or of the system, the process does
something to itself. Times are written to a file, so that how long the others took to stop can be told.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

TIME_OF_FAULT = "fault.time"
SPOILED = Path("spoiled.png")  # where an image is kept that was spoiled
Deed = Callable[[Callable[[], Any]], Any]
"""of a call: what takes its place"""

# Where: functions, by the moment of a run at which they are called.
PLACES = {
    "micro-batch": ("vmoe.train.step", "micro_step"),
    "update": ("vmoe.train.step", "update"),
    "after the update": ("vmoe.train.loop", "stop_if_needed"),
    "reading": ("vmoe.train.step", "read_ahead"),
    "loader": ("vmoe.train.meter.Meter", "read"),
    "loss": ("vmoe.train.images.ImageTask", "training_loss"),
    "evaluation": ("vmoe.train.evaluate", "agree"),
    "loader of the evaluation": ("vmoe.train.evaluate", "islice"),
    "snapshot": ("vmoe.train.loop", "snapshot"),
    "digest": ("vmoe.train.checkpoint.file", "digest_of"),
    "write": ("torch", "save"),
    "flush": ("os", "fsync"),
    "rename": ("os", "replace"),
    "link": ("os", "link"),
    "log": ("vmoe.train.runfolder.RunFolder", "log"),
    "end": ("vmoe.cli.train", "announce"),
}


def note_time() -> None:
    Path(TIME_OF_FAULT).write_text(repr(time.time()))


def sends(number: int) -> Deed:
    """A signal to itself."""

    def deed(function: Callable[[], Any]) -> Any:
        note_time()
        os.kill(os.getpid(), number)
        return function()

    return deed


def is_terminated_twice(function: Callable[[], Any]) -> Any:
    """The second time a while later, in which the first was not heeded."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1.2)
    return sends(signal.SIGTERM)(function)


def hangs(function: Callable[[], Any]) -> Any:
    note_time()
    time.sleep(600)


def raises(error: BaseException) -> Deed:
    def deed(function: Callable[[], Any]) -> Any:
        note_time()
        raise error

    return deed


def raises_when_asked(error: BaseException) -> Deed:
    """For a function that returns an iterator."""

    def deed(function: Callable[[], Any]) -> Any:
        def iterator() -> Iterator[Any]:
            note_time()
            raise error
            yield

        return iterator()

    return deed


def is_times(factor: float) -> Deed:
    """What the function returns, changed."""

    def deed(function: Callable[[], Any]) -> Any:
        note_time()
        return function() * factor

    return deed


def spoils_an_image(function: Callable[[], Any]) -> Any:
    """The last one of a class of the training images."""
    note_time()
    path = sorted(Path("images/train/light").iterdir())[-1]
    os.replace(path, SPOILED)
    path.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return function()


def kills_its_workers(function: Callable[[], Any]) -> Any:
    note_time()
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    return function()


NO_BATCH = TimeoutError("no batch came within 5 s")
DEEDS: dict[str, Deed] = {
    "is killed": sends(signal.SIGKILL),
    "is terminated": sends(signal.SIGTERM),
    "is interrupted": sends(signal.SIGINT),
    "is terminated twice": is_terminated_twice,
    "hangs": hangs,
    "meets a full disk": raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "meets a failing disk": raises(OSError(errno.EIO, os.strerror(errno.EIO))),
    "runs out of memory": raises(MemoryError("no memory left")),
    "has a bug": raises(KeyError("a bug")),
    "times out": raises(NO_BATCH),
    "times out when asked": raises_when_asked(NO_BATCH),
    "is nan": is_times(float("nan")),
    "is huge": is_times(1000.0),
    "spoils an image": spoils_an_image,
    "kills its workers": kills_its_workers,
}


@dataclass(frozen=True)
class Bomb:
    """place: one of `PLACES`. call: the number of its calls, from 1. deed: one of `DEEDS`. ever_after: at later calls
    too.
    """

    place: str
    call: int
    deed: str
    ever_after: bool = False

    def arm(self) -> None:
        holder, name = PLACES[self.place]
        owner = find(holder)
        replace(owner, name, self.counted(getattr(owner, name)))

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls are counted."""
        calls = 0

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            go = partial(function, *arguments, **named)
            goes_off = calls == self.call or (self.ever_after and calls > self.call)
            return DEEDS[self.deed](go) if goes_off else go()

        return call


def find(name: str) -> Any:
    """A module, or a class in one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def replace(owner: Any, name: str, value: Any) -> None:
    """In the place where it is looked up, and wherever vmoe has imported it by its name."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("vmoe") and getattr(module, name, None) is before:
            setattr(module, name, value)
