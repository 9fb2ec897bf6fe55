"""Progress for people: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress:
    """Counts units of a task. short: the unit's name. done: so many at the start. show: whether this process prints."""

    def __init__(self, description: str, units: int, short: str, *, show: bool, done: int = 0):
        self.description = description
        self.show = show
        self.on_terminal = show and sys.stderr.isatty()
        self.bar = tqdm(
            total=units,
            initial=done,
            desc=description,
            unit=short,
            unit_scale=True,
            leave=False,
            disable=not self.on_terminal,
        )

    def advance(self, units: int) -> None:
        """So many more are done."""
        self.bar.update(units)

    def figures(self, text: str) -> None:
        """Figures of the moment: beside the bar on a terminal, a line of their own elsewhere."""
        if self.on_terminal:
            self.bar.set_postfix_str(text, refresh=False)
        elif self.show:
            print(f"{self.description}: {text}", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
