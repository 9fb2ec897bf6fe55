"""How `vmoe eval` is asked to judge a model, where that is not as its training does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from vmoe.data.matching import Match
from vmoe.train.task import Scorer


@dataclass(frozen=True)
class Judging:
    """classes: how those of the data stand to those of the model. real: the file of several labels an image, or None.
    flip: whether the mirror image counts too. paired: whether each prediction is kept, to be compared with another.
    """

    classes: Match = "same"
    real: str | None = None
    flip: bool = False
    paired: bool = False

    @property
    def options(self) -> dict[str, bool]:
        """Which options of the command ask for something, by their names."""
        classes, real = self.classes != "same", self.real is not None
        return {"--classes": classes, "--real": real, "--flip": self.flip, "--against": self.paired}


class Judge(NamedTuple):
    """scorer: makes a new one. mirror: as in `vmoe.train.evaluate.evaluate`."""

    scorer: Callable[[], Scorer]
    mirror: Callable[[Tensor], Tensor] | None
