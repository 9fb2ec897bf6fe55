"""A training loader without ends of epochs, so that what is timed is its rate and not its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..order import Indices, Keys, Order
from ..ordered import OrderedLoader

AnyLoader = TypeVar("AnyLoader", bound=OrderedLoader)


@dataclass(frozen=True)
class Chained:
    """So many epochs of an order as one."""

    order: Order
    epochs: int

    @property
    def batch_size(self) -> int:
        return self.order.batch_size

    @property
    def samples(self) -> int:
        return self.epochs * self.order.samples

    @property
    def batches(self) -> int:
        return self.epochs * self.order.batches

    def indices(self, epoch: int) -> Indices:
        return np.concatenate([self.order.indices(each) for each in self._epochs(epoch)])

    def keys(self, epoch: int) -> Keys:
        return np.concatenate([self.order.keys(each) for each in self._epochs(epoch)])

    def _epochs(self, epoch: int) -> range:
        return range(epoch * self.epochs, (epoch + 1) * self.epochs)


def steady(loader: AnyLoader, *, workers: int, batches: int) -> AnyLoader:
    """The training loader with so many workers, whose one epoch has at least so many batches of its data."""
    order = Chained(loader._order, -(-batches // loader._order.batches))
    return type(loader)(loader.source, loader.classes, order, loader._data, training=True, workers=workers)
