"""Saves that are killed at each boundary of a system call, one after another; run by `test_killed_saves.py`.

Each is a process of its own, forked from this one, which has torch loaded and no threads. Prints how many boundaries
there were, and what was wrong at any of them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stored import checkpoint_of, steps_in, store_in

from vmoe.train.checkpoint import file

PIECE = 300  # bytes: writes of fewer are not cut in two
CALLS = ("open", "fsync", "link", "replace", "unlink", "mkdir")


def without_waiting(descriptor: int) -> None:
    """Stands for os.fsync: what was written outlives its process, if not the machine."""


class Killer:
    """Kills this process at boundary number `at`: after each call, which is before the next, and within long writes."""

    def __init__(self, at: int, *, links: bool):
        self.at, self.links, self.count = at, links, 0
        for name in CALLS:
            setattr(os, name, self.around(getattr(os, name), name))
        write = file._Watched.write

        def in_two(watched: Any, content: Any) -> int:
            half = len(content) // 2 if len(content) > PIECE else 0
            write(watched, content[:half])
            if half:
                watched.file.flush()
                self.boundary()
            return half + write(watched, content[half:])

        file._Watched.write = in_two  # type: ignore[method-assign]

    def around(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            if name == "link" and not self.links:
                raise OSError("no links here")
            result = call(*arguments, **options)
            self.boundary()
            return result

        return watched

    def boundary(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def save(folder: Path, step: int, rank: float | None, keep: dict[str, int]) -> None:
    with store_in(folder, **keep) as store:
        store.save(checkpoint_of(step, evaluated=step if rank is not None else 0), rank=rank)


def killed_at(at: int, folder: Path, step: int, rank: float | None, keep: dict[str, int], *, links: bool) -> bool:
    """Whether a save was killed at this boundary; if not, there are fewer."""
    child = os.fork()
    if child == 0:
        Killer(at, links=links)
        save(folder, step, rank, keep)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def check(folder: Path, before: dict[str, int], best_before: float, step: int, keep: dict[str, int]) -> None:
    """Everything that has a name is whole, and what was good before is there, or something newer and better."""
    now = steps_in(folder)  # reads each of them
    assert ("last.pt" in now) >= ("last.pt" in before)
    assert now.get("last.pt") in (before.get("last.pt"), step)
    assert {name for name in before if name.startswith("step-")} <= set(now)
    latest_two = {now[name] for name in ("last.pt", "previous.pt") if name in now}
    assert len(latest_two) >= len({before[name] for name in ("last.pt", "previous.pt") if name in before})
    store = store_in(folder, **keep)
    assert store.best_rank >= best_before
    newest = store.newest()
    if before:
        assert newest is not None
        assert newest[1]["training"]["step"] >= max(before.values())
    save(folder, step + 1, 9.0, keep)  # the next one is as if nothing had been
    after = steps_in(folder)
    assert (after["last.pt"], after["best.pt"]) == (step + 1, step + 1)
    assert not list(folder.glob(".*"))


def campaign(start: Path, step: int, rank: float | None, keep: dict[str, int], *, links: bool = True) -> int:
    """Kill the same save, into copies of the same folder, at every boundary; how many there are."""
    before, best_before = steps_in(start), store_in(start).best_rank
    at = 0
    while True:
        at += 1
        folder = start.with_name("copy")
        shutil.copytree(start, folder, copy_function=link_or_copy)
        killed = killed_at(at, folder, step, rank, keep, links=links)
        try:
            if not killed:
                return at - 1
            check(folder, before, best_before, step, keep)
        except Exception as error:
            print(f"step {step}, boundary {at}: {error!r}; {before} became {os.listdir(folder)}")
            raise
        finally:
            shutil.rmtree(folder)


def link_or_copy(source: str, target: str) -> None:
    """Hard links stay hard links."""
    os.link(source, target)


def main(folder: Path) -> None:
    os.fsync = without_waiting
    keep: dict[str, int] = {"keep_best": 2, "keep_every": 4}
    start = folder / "run"
    start.mkdir()
    print("the first", campaign(start, 1, None, keep), flush=True)
    for step, rank in [(1, 0.1), (2, 0.2), (3, 0.3)]:
        save(start, step, rank, keep)
    print("the next", campaign(start, 4, None, keep), flush=True)
    print("a new best", campaign(start, 4, 0.4, keep), flush=True)
    print("without links", campaign(start, 5, 0.9, keep, links=False), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
