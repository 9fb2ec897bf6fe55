"""Progress for people: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress:
    """Counts images. show: whether this process prints at all."""

    def __init__(self, description: str, images: int, *, show: bool):
        self.description = description
        self.show = show
        self.on_terminal = show and sys.stderr.isatty()
        self.bar = tqdm(total=images, desc=description, unit="img", leave=False, disable=not self.on_terminal)

    def advance(self, images: int) -> None:
        """So many more images are done."""
        self.bar.update(images)

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
