"""How large the images of an epoch are: progressive resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vmoe.config.schema import ImageDataConfig, ProgressiveConfig


@dataclass(frozen=True)
class Sizes:
    """Sides of the images, in pixels: `final`, or, over so many epochs of training, what `progressive` says."""

    final: int
    progressive: ProgressiveConfig | None = None
    epochs: int = 1

    @classmethod
    def of(cls, data: ImageDataConfig, epochs: int) -> Sizes:
        """Of a run over so many epochs."""
        return cls(data.image_size, data.progressive, epochs)

    @property
    def by_epoch(self) -> tuple[int, ...]:
        """Of each epoch of training."""
        return tuple(self.at(epoch) for epoch in range(self.epochs))

    def at(self, epoch: int) -> int:
        """Of epoch number `epoch`, from 0; `final` from the share `progressive.end` of the epochs on, at the latest."""
        growth = self.progressive
        if growth is None or epoch >= growth.end * self.epochs:
            return self.final
        side = np.interp(epoch, (growth.begin * self.epochs, growth.end * self.epochs), (growth.start, self.final))
        return int(np.rint(side / growth.multiple)) * growth.multiple
