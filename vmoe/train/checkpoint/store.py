"""The checkpoints of a run: written by a thread of their own while training goes on, and never fewer than two."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vmoe.files import flush, temporary_name

from ..warn import tell
from .best import BEST, Best
from .file import contents_of, read_file, write_contents
from .names import give_name, link_or_copy, remove_leftovers
from .newest import find_newest


class CheckpointStore:
    """One folder of checkpoints, which one process of a run writes; for the others saving does nothing.

    last, previous: the two latest. best: of the best evaluation; `Best` says what the others of keep_best are called.
    step-NUMBER: those whose step is a multiple of keep_every. A checkpoint with several names is one file with several
    hard links; where there are none, it is copied.

    At every moment, also after a crash, two good ones have names, of which `last` is the later one; of two steps, once
    there are two.
    """

    def __init__(self, folder: Path, *, writes: bool, keep_best: int, keep_every: int | None):
        self.folder = folder
        self.last, self.previous, self.best = folder / "last.pt", folder / "previous.pt", folder / BEST
        self.writes = writes
        self.keep_every = keep_every
        self._tell = tell if writes else keep_quiet
        self._best = Best(folder, keep_best, tell=self._tell)
        self._steps: dict[Path, int | None] = {}  # of last and previous, None for damaged ones; empty: not yet read
        self._writer: ThreadPoolExecutor | None = None
        self._latest: Future[str | None] | None = None

    def save(self, checkpoint: Mapping[str, Any], *, rank: float | None = None) -> None:
        """Write a checkpoint that nobody changes any more, as soon as the one before is written; return at once.

        rank: of the evaluation of this state, higher is better; then it may become one of the best. What cannot be
        written leaves the others as they are, and is told on standard error; training goes on.
        """
        if not self.writes:
            return
        contents = contents_of(checkpoint, rank)
        self.settle()
        if self._writer is None:
            self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._latest = self._writer.submit(self._write, contents)

    def settle(self) -> str | None:
        """Wait until everything is written; what went wrong in the latest write, which has been told. Another process
        that is to read what this one wrote comes after this, and a barrier.
        """
        return None if self._latest is None else self._latest.result()

    def wait(self) -> None:
        """`settle`. Raises `OSError` if the latest write failed."""
        if (wrong := self.settle()) is not None:
            raise OSError(wrong)

    def close(self) -> None:
        """`wait`, and end the thread; a later save starts another one."""
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.close()
        except OSError:
            if error is None:
                raise

    @property
    def best_rank(self) -> float:
        """Of the best checkpoint that is here, once everything is written; -inf without one."""
        self.settle()
        return self._best.rank

    @property
    def paths(self) -> list[Path]:
        """Every checkpoint that is here, good or not, in the order in which those of one step are preferred."""
        named = (self.last, self.previous, *self._best.paths, *sorted(self.folder.glob("step-*.pt")))
        return [path for path in named if path.exists()]

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The good checkpoint of the latest training step with its path, or None if there is no file at all.

        Damaged ones are passed over and told on standard error; nothing is deleted. Raises `ValueError`, which names
        each file and its damage, if none is good.
        """
        self.settle()
        return find_newest(self.paths, tell=self._tell)

    def _write(self, contents: dict[str, Any]) -> str | None:
        """In the thread: write the file, then give it its names; what went wrong, if anything.

        It returns no error, which would keep the contents in memory.
        """
        temporary = temporary_name(self.folder / "new.pt")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            write_contents(temporary, contents)
            flush(temporary)
            self._name(temporary, contents["training"]["step"], contents["rank"])
        except Exception as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            told = f"checkpoint {self.last} could not be written: {error}; {self._left()}"
            self._tell(f"{told}; the next save tries again")
            return told
        return None

    def _left(self) -> str:
        """What there is to go on from."""
        left = [path for path in (self.last, self.previous) if path.exists() and self._steps.get(path, 0) is not None]
        return f"the last good one is {left[0]}" if left else "there is none before it"

    def _name(self, file: Path, step: int, rank: float | None) -> None:
        """First what a resumed run would not do again, then the latest two.

        The one that was last becomes previous, but a second one of its step, which an evaluation has been added to,
        takes its place. All three have a name until the new two have theirs.
        """
        if rank is not None:
            self._best.offer(file, rank, step)
        if self.keep_every is not None and step % self.keep_every == 0:
            give_name(file, self.folder / f"step-{step}.pt")
        was_last, was_previous = self._step_of(self.last), self._step_of(self.previous)
        moves = was_last is not None and (was_last != step or was_previous is None)
        before = temporary_name(self.previous)
        if moves:
            link_or_copy(self.last, before)
            flush(before)
        os.replace(file, self.last)
        self._steps[self.last] = step
        if moves:
            flush(self.folder)
            os.replace(before, self.previous)
            self._steps[self.previous] = was_last
        flush(self.folder)

    def _step_of(self, path: Path) -> int | None:
        """Of last or previous, which may be of a run before and are then read once; None if there is no good one."""
        if path not in self._steps:
            try:
                self._steps[path] = read_file(path)["training"]["step"]
            except (ValueError, OSError):
                self._steps[path] = None
        return self._steps[path]


def keep_quiet(line: str) -> None:
    """Another process tells."""
