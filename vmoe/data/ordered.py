"""What both loaders have in common: classes, and an order that says how much an epoch covers."""

from __future__ import annotations

from .order import Order


class OrderedLoader:
    """The counts of a `Loader`, from its order."""

    def __init__(self, classes: tuple[str, ...], order: Order) -> None:
        self.classes = classes
        self._order = order

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
