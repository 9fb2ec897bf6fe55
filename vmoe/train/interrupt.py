"""Interruptions: a signal sets a flag, which training asks between steps; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TOGETHER = 1.0  # seconds within which signals are one: a launcher passes on what its processes have got already


class Interrupted(Exception):  # noqa: N818  # no error
    """A run was asked to stop, and has. signal: the name of what asked."""

    def __init__(self, signal_name: str):
        super().__init__(f"interrupted by {signal_name}")
        self.signal = signal_name


class Interrupts:
    """Within this scope SIGTERM and SIGINT only set `received`, a signal's number or 0; a second signal, a second or
    more after the first, does what it does by default. Outside the main thread, where Python handles no signals, the
    scope does nothing.
    """

    def __init__(self) -> None:
        self.received = 0
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave

    def _receive(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self.received:
            self.received, self._since = number, time.monotonic()
            # no print: the signal may have come in the middle of one
            os.write(2, f"{name}: stopping after this step, with a checkpoint; once more stops at once\n".encode())
        elif time.monotonic() - self._since >= TOGETHER:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
