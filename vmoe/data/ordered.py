"""What both loaders have in common: a data set, and an order that says what of it an epoch covers."""

from __future__ import annotations

from typing import Any, Self

from vmoe.config.schema import ImageDataConfig

from .order import Indices, Order, SampleOrder
from .sizes import Sizes


class OrderedLoader:
    """The counts of a `Loader`, from its order, and its `sample`.

    source: where the images lie. sizes: of the images of each epoch; None for data.image_size in all.
    """

    def __init__(
        self,
        source: Any,
        classes: tuple[str, ...],
        order: Order,
        data: ImageDataConfig,
        *,
        training: bool,
        workers: int,
        sizes: Sizes | None = None,
    ) -> None:
        self.source = source
        self.classes = classes
        self._order = order
        self._data = data
        self._training = training
        self._workers = workers
        self._sizes = sizes or Sizes(data.image_size)

    def sample(self, count: int) -> Self:
        """See `Loader.sample`."""
        order = SampleOrder(len(self.source.labels), count, self._order.batch_size)
        return type(self)(self.source, self.classes, order, self._data, training=False, workers=self._workers)

    def indices(self) -> Indices:
        """The images of this process in epoch 0, by their places in the data set, as batches bring them."""
        return self._order.indices(0)

    @property
    def labels(self) -> Indices:
        """(N,): of all images of the data set, in its order."""
        labels: Indices = self.source.labels
        return labels

    @property
    def own_classes(self) -> tuple[int, ...]:
        """The classes that the data themselves name, by their numbers in `classes`, ascending."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        return tuple(sorted(numbers[name] for name in self.source.classes))

    def names(self) -> tuple[str, ...] | None:
        """The file of each image of the data set, relative to its folder; None where that is not known."""
        names: tuple[str, ...] | None = self.source.names()
        return names

    @property
    def samples(self) -> int:
        return self._order.samples

    @property
    def units(self) -> int:
        """What an epoch counts: images."""
        return self.samples

    @property
    def batches(self) -> int:
        return self._order.batches

    def __len__(self) -> int:
        return self.batches
