"""The checkpoints of a run's best evaluations, which know their rank themselves, so that a restart forgets nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from .file import read_file
from .names import give_name

BEST = "best.pt"


class Ranked(NamedTuple):
    """A good checkpoint of an evaluation. step: of the optimizer. rank: higher is better."""

    rank: float
    step: int
    path: Path


class Best:
    """best.pt is the best, best-STEP.pt are the next ones, `count` altogether.

    Files of a run before are read when they are first asked for, each once. Damaged ones count for nothing: they are
    told, best.pt is replaced at the next evaluation, others are left.
    """

    def __init__(self, folder: Path, count: int, *, tell: Callable[[str], None]):
        self.folder = folder
        self.best = folder / BEST
        self.count = count
        self.tell = tell
        self.damaged: set[Path] = set()
        self._ranked: list[Ranked] | None = None

    @property
    def paths(self) -> list[Path]:
        """Every file that is here, best.pt first."""
        return [path for path in (self.best, *sorted(self.folder.glob("best-*.pt"))) if path.exists()]

    @property
    def ranked(self) -> list[Ranked]:
        """The good ones, the best first; of one rank, the earlier step first."""
        if self._ranked is None:
            by_step: dict[int, Ranked] = {}
            for path in self.paths:
                found = self._read(path)
                if found is not None and (found.step not in by_step or found.rank > by_step[found.step].rank):
                    by_step[found.step] = found
            self._ranked = in_order(by_step.values())
        return self._ranked

    def _read(self, path: Path) -> Ranked | None:
        try:
            contents = read_file(path)
        except (ValueError, OSError) as error:
            self.tell(f"{error}; it no longer counts as one of the best")
            self.damaged.add(path)
            return None
        rank = contents["rank"]
        return Ranked(rank, contents["training"]["step"], path) if rank is not None else None

    @property
    def rank(self) -> float:
        """Of the best one; -inf without one."""
        return self.ranked[0].rank if self.ranked else -math.inf

    def offer(self, file: Path, rank: float, step: int) -> None:
        """Give a file its name if it is among the best, and drop what no longer is. best.pt is there at every moment.

        A step that is here already, since a run that went on evaluated it again, stays unless it has become better.
        """
        if not rank > -math.inf or any(one.step == step and one.rank > rank for one in self.ranked):
            return
        others = [one for one in self.ranked if one.step != step]
        chosen = in_order([*others, Ranked(rank, step, file)])[: self.count]
        named = [self._name(one, self.folder / f"best-{one.step}.pt") for one in chosen[1:]]
        named.insert(0, self._name(chosen[0], self.best))
        self._ranked = named
        self.damaged.discard(self.best)
        for path in set(self.paths) - {one.path for one in named} - self.damaged:
            path.unlink()

    def _name(self, one: Ranked, path: Path) -> Ranked:
        if one.path != path:
            give_name(one.path, path)
        return one._replace(path=path)


def in_order(ranked: Iterable[Ranked]) -> list[Ranked]:
    return sorted(ranked, key=lambda one: (-one.rank, one.step))
