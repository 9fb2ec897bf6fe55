"""Evaluation counts every image once, whatever loader reads it and whatever number of processes share it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy import COUNTS, IMAGES, SIZE, Toy

from vmoe.data import Share, open_evaluation
from vmoe.train.accuracy import Accuracy
from vmoe.train.judging import WithPredictions, WithRealLabels

CPU = torch.device("cpu")
CLASSES = len(COUNTS)
WEIGHT = torch.randn(3 * SIZE * SIZE, CLASSES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def logits_of(images: Tensor) -> Tensor:
    """Of a linear model in float64, rounded, so that an image has the same logits in any batch."""
    return ((images.flatten(1).double() / 255 - 0.5) @ WEIGHT / 8).round(decimals=4).float()


def add(one: list[Tensor], other: list[Tensor]) -> None:
    for mine, more in zip(one, other, strict=True):
        mine += more


class Judged:
    """One process's scorers over its share."""

    def __init__(self, toy: Toy, loader: str, rank: int, world: int):
        opened = open_evaluation(toy.config(loader, workers=1), processes=Share(rank, world, world))
        real = [[place % CLASSES] if place % 5 else [] for place in opened.indices().tolist()]
        labelled = sum(place % 5 > 0 for place in range(IMAGES))
        self.accuracy = Accuracy(CLASSES, CPU)
        self.real = WithRealLabels(self.accuracy, real, labelled, CPU)
        self.all = WithPredictions(self.real, torch.from_numpy(opened.indices()), IMAGES, CPU)
        for images, labels in opened.epoch(0):
            self.all.update(logits_of(images), labels)

    def counts(self) -> list[Tensor]:
        kept = [self.all.predicted_N, self.all.target_N, self.all.times_N]
        return [*self.accuracy.counts(), self.accuracy.evaluator.loss_sum, self.real.counts, *kept]


@pytest.mark.parametrize("loader", ["folder", "ffcv"])
def test_every_number_of_processes_counts_the_same(toy: Toy, loader: str) -> None:
    """37 images: with 2 and 3 processes shares are of different lengths; every count is the same to the last one."""
    alone = Judged(toy, loader, 0, 1).all.compute()
    assert alone.units == alone.figures["eval_samples"] == sum(alone.by_label.seen) == IMAGES
    assert alone.by_label.seen == tuple(COUNTS.values())
    assert alone.figures["real_samples"] == 29, "37 less the 8 multiples of 5 from 0 to 35"
    for world in (2, 3):
        first, *others = (Judged(toy, loader, rank, world) for rank in range(world))
        for other in others:
            add(first.counts(), other.counts())
        together = first.all.compute()
        figures, expected = dict(together.figures), dict(alone.figures)
        assert figures.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-6)  # float32 means of other batches
        assert figures == expected
        assert together.by_label == alone.by_label
        assert together.kept.predicted.equal(alone.kept.predicted)
        assert together.kept.target.equal(alone.kept.target)


def test_a_process_that_is_missing_is_noticed(toy: Toy) -> None:
    first, _ = (Judged(toy, "folder", rank, 2) for rank in range(2))
    with pytest.raises(RuntimeError, match=f"did not judge 18 of {IMAGES} images exactly once"):
        first.all.compute()
    with pytest.raises(RuntimeError, match=r"counted \d+ images with real labels, and there are 29"):
        first.real.compute()
