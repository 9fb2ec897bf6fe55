"""Ask what may hang or crash in a process of its own, and wait only so long for the answer."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Generic, TextIO, TypeVar

T = TypeVar("T")
VALUE, FAILED, DONE = "value", "failed", "done"
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


class NoAnswerError(RuntimeError):
    """The question failed, its process died, or the time is up; the message says which."""


def isolated(question: Callable[[], T], timeout: float) -> T:
    """What the question returns, a value that can be pickled, from a forked process; otherwise as `streamed`."""
    with closing(streamed(lambda: iter([question()]), timeout)) as answers:
        return next(answers)


def streamed(source: Callable[[], Iterator[T]], timeout: float, later: float | None = None) -> Generator[T, None, None]:
    """What an iterator yields in a forked process, each value as soon as it is there.

    That process prints nothing. It is ended with everything that it started, and ends when this one does.
    timeout: seconds for the first value; later: for each other one, None for any time. Raises `NoAnswerError`.
    """
    context = get_context("fork")  # what this process has imported need not be imported again
    receiving, sending = context.Pipe(duplex=False)
    with tempfile.TemporaryFile("w+", buffering=1, errors="replace") as printed:
        process = context.Process(target=_answer, args=(source, sending, printed))
        process.start()
        sending.close()
        patience: float | None = timeout
        try:
            while True:
                if not receiving.poll(patience):
                    raise NoAnswerError(f"no answer within {patience:g} seconds")
                kind, value = receiving.recv()
                if kind == DONE:
                    return
                if kind == FAILED:
                    raise NoAnswerError(value)
                yield value
                patience = later
        except EOFError:
            process.join()
            raise NoAnswerError(_death(process.exitcode or 0, printed)) from None
        finally:
            receiving.close()
            _end(process)


def _answer(source: Callable[[], Iterator[Any]], sending: Connection, printed: TextIO) -> None:
    """In the new process: sends (what it is, the value or the error's words)."""
    os.setsid()  # so that what it starts can be ended with it
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    sys.stdout = sys.stderr = printed
    for stream in (1, 2):  # of what is no Python
        os.dup2(printed.fileno(), stream)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the pool of another process does not come along
    try:
        for value in source():
            sending.send((VALUE, value))
    except Exception as error:
        known = isinstance(error, ValueError | OSError)  # sentences for users
        sending.send((FAILED, str(error) if known else f"{type(error).__name__}: {error}"))
    else:
        sending.send((DONE, None))


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
        self._asked: Generator[T | None, None, None] | None = None
        self._answer: tuple[T | None, str | None] | None = None

    @classmethod
    def failed(cls, error: str) -> Once[T]:
        """One that has no answer, for a reason that is known."""
        known = cls.__new__(cls)
        known._answer = None, error
        return known

    def start(self) -> None:
        """Ask now, and wait for the answer when it is needed."""
        if self._answer is None and self._asked is None:
            self._asked = streamed(self._announced, self._timeout, self._timeout)
            next(self._asked, None)

    def _announced(self) -> Iterator[T | None]:
        yield None
        yield self._question()

    @property
    def value(self) -> T | None:
        return self._ask()[0]

    @property
    def error(self) -> str | None:
        return self._ask()[1]

    def _ask(self) -> tuple[T | None, str | None]:
        if self._answer is None:
            try:
                self.start()
                assert self._asked is not None
                with closing(self._asked) as answers:
                    self._answer = next(answers), None
            except NoAnswerError as error:
                self._answer = None, str(error)
        return self._answer
