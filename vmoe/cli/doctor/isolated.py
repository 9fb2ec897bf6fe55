"""Ask what may hang or crash in a process of its own, and wait only so long for the answer."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Generic, TextIO, TypeVar

T = TypeVar("T")


class NoAnswerError(RuntimeError):
    """The question failed, its process died, or the time is up; the message says which."""


def isolated(question: Callable[[], T], timeout: float) -> T:
    """What the question returns, a value that can be pickled, from a forked process.

    That process prints nothing. It is ended with everything that it started. Raises `NoAnswerError`.
    """
    context = get_context("fork")  # what this process has imported need not be imported again
    receiving, sending = context.Pipe(duplex=False)
    with tempfile.TemporaryFile("w+", buffering=1, errors="replace") as printed:
        process = context.Process(target=_answer, args=(question, sending, printed))
        process.start()
        sending.close()
        failed: bool
        answer: Any
        try:
            answered = receiving.poll(timeout)
            failed, answer = receiving.recv() if answered else (True, f"no answer within {timeout:g} seconds")
        except EOFError:
            process.join()
            failed, answer = True, _death(process.exitcode or 0, printed)
        finally:
            receiving.close()
            _end(process)
    if failed:
        raise NoAnswerError(answer)
    result: T = answer
    return result


def _answer(question: Callable[[], Any], sending: Connection, printed: TextIO) -> None:
    """In the new process: (whether it failed, the value or the error's words)."""
    os.setsid()  # so that what it starts can be ended with it
    sys.stdout = sys.stderr = printed
    for stream in (1, 2):  # of what is no Python
        os.dup2(printed.fileno(), stream)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the pool of another process does not come along
    try:
        answer = False, question()
    except Exception as error:
        known = isinstance(error, ValueError | OSError)  # sentences for users
        answer = True, str(error) if known else f"{type(error).__name__}: {error}"
    sending.send(answer)


def _death(status: int, printed: TextIO) -> str:
    printed.seek(0)
    last = [line for line in printed.read().splitlines() if line.strip()][-1:]
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
    return f"its process ended {how}" + "".join(f" ({line.strip()})" for line in last)


def _end(process: Any) -> None:
    """Kill the process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()  # it has not come to be a group's leader yet
    process.join()


class Once(Generic[T]):
    """The answer to a question, which is asked when it is first needed. One of `value` and `error` is None."""

    def __init__(self, question: Callable[[], T], timeout: float):
        self._question = question
        self._timeout = timeout
        self._answer: tuple[T | None, str | None] | None = None

    @property
    def value(self) -> T | None:
        return self._ask()[0]

    @property
    def error(self) -> str | None:
        return self._ask()[1]

    def _ask(self) -> tuple[T | None, str | None]:
        if self._answer is None:
            try:
                self._answer = isolated(self._question, self._timeout), None
            except NoAnswerError as error:
                self._answer = None, str(error)
        return self._answer
