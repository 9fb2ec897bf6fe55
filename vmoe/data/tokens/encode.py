"""Parts of text to tokens, in several processes, in the order of the parts whatever the number of processes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

import numpy as np

from ..errors import DataError
from .documents import FilePart, Part, check_file
from .pieces import PIECE
from .tokenizer import Tokenizer
from .writer import Encoded, encode, join

_AHEAD = 4  # tasks that wait or have waited for each process: what bounds the memory
_FILES = 64  # checked in one task at most

Item = TypeVar("Item")
Result = TypeVar("Result")


class Encoder:
    """Processes that check and encode text.

    share: of the documents, goes to the second of two files; which ones follows from their digests. None: there is
    one file.
    """

    def __init__(self, tokenizer: Tokenizer, share: float | None, workers: int | None) -> None:
        self._tokenizer = tokenizer
        self._share = share
        self._workers = workers or len(os.sched_getaffinity(0))

    def check(self, paths: Iterable[Path]) -> Iterator[list[FilePart]]:
        """The parts of each group of files. Raises `DataError`, as `check_file` does, for the first file that does."""
        return self._in_order(_Worker.check, _groups(paths, lambda path: path.stat().st_size + PIECE // _FILES))

    def encode(self, parts: Iterable[Part]) -> Iterator[tuple[int, tuple[Encoded, Encoded]]]:
        """The size of each group of parts, and its tokens for either file. Raises `DataError`."""
        groups, sizes = itertools.tee(_groups(parts, lambda part: part.size))
        for group, encoded in zip(sizes, self._in_order(_Worker.encode, groups), strict=True):
            yield sum(part.size for part in group), encoded

    def goes_to_val(self, digest: bytes) -> bool:
        """Whether the document with that digest does."""
        return _goes_to_val(digest, self._share)

    def _in_order(self, function: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        with self._pool() as pool:
            first = list(itertools.islice(items, _AHEAD * self._workers))
            with _uninterrupted():
                waiting.extend(pool.submit(function, item) for item in first)
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in itertools.islice(items, 1))

    @contextmanager
    def _pool(self) -> Iterator[ProcessPoolExecutor]:
        pool = ProcessPoolExecutor(self._workers, initializer=_Worker.start, initargs=(self._tokenizer, self._share))
        try:
            yield pool
        except BrokenProcessPool as error:
            raise DataError(
                "a process that read or encoded text was killed, perhaps for lack of memory; use fewer workers."
                " Nothing was written"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _groups(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items one after another until they have the size of a piece: small ones are not worth a task each."""
    group: list[Item] = []
    total = 0
    for item in items:
        group.append(item)
        total += size(item)
        if total >= PIECE:
            yield group
            group, total = [], 0
    if group:
        yield group


def _goes_to_val(digest: bytes, share: float | None) -> bool:
    return share is not None and int.from_bytes(digest[:8], "big") < share * 2**64


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off: where processes are forked, Python would lose it, or give it to those that are new.

    A handler does, where a mask would not: that is of one thread, and tqdm's, for one, would take the signal instead.
    """
    if threading.current_thread() is not threading.main_thread():  # others are never interrupted
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and callable(before):
        before(*caught[0])


def _end_with_parent() -> None:
    """Wait for the death of the process that started this one, and end: nobody else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Worker:
    """What a process holds: given once at its start."""

    tokenizer: Tokenizer
    share: float | None

    @classmethod
    def start(cls, tokenizer: Tokenizer, share: float | None) -> None:
        cls.tokenizer, cls.share = tokenizer, share
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
        threading.Thread(target=_end_with_parent, daemon=True).start()

    @classmethod
    def check(cls, paths: list[Path]) -> list[FilePart]:
        return [part for path in paths for part in check_file(path)]

    @classmethod
    def encode(cls, parts: list[Part]) -> tuple[Encoded, Encoded]:
        empty = Encoded(np.zeros(0, np.uint16), 0, 0, 0)
        encoded: tuple[list[Encoded], list[Encoded]] = [empty], [empty]
        for part in parts:
            text = part.read()
            found = encode(cls.tokenizer, text.content, ends=text.ends, name=text.name)
            encoded[_goes_to_val(text.digest, cls.share)].append(found)
        return join(encoded[0]), join(encoded[1])
