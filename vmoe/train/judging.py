"""Other ways to judge a classifier than by all its classes and one label an image; each is put around a scorer.

Shapes: B images of a batch, C classes of the model, J classes that it is restricted to, N images of the data set, n of
this process, R real labels of an image at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from vmoe.moe.collective import sum_together

from .accuracy import top_classes, zeros
from .task import Kept, Scorer, Scores


def mirror(images: Tensor) -> Tensor:
    """(B, 3, H, W), left for right."""
    return images.flip(-1)


def mean_of_views(logits: Tensor, others: Tensor) -> Tensor:
    """(B, C): the logarithm of the mean of both probabilities, which as logits give that mean.

    The average of the network's softmax over views, as Krizhevsky, Sutskever & Hinton 2012 (section 4.1) take it.
    """
    one, other = (functional.log_softmax(view.float(), dim=-1) for view in (logits, others))
    return torch.logaddexp(one, other) - math.log(2)


class Restricted:
    """Judges by some of the classes alone: the model chooses among these, and its probabilities sum to 1 over them.

    judged (J,): their numbers among the model's classes. scorer: of J classes.
    """

    def __init__(self, scorer: Scorer, judged: Sequence[int], num_classes: int, device: torch.device):
        self.scorer = scorer
        self.labels = tuple(judged)
        self.judged_J = torch.tensor(self.labels, device=device)
        self.place_C = torch.full((num_classes,), -1, device=device)
        self.place_C[self.judged_J] = torch.arange(len(self.labels), device=device)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.scorer.update(logits[:, self.judged_J], self.place_C[targets])

    def compute(self) -> Scores:
        scores = self.scorer.compute()
        if scores.by_label is None:
            return scores
        labels = tuple(self.labels[place] for place in scores.by_label.labels)
        return replace(scores, by_label=scores.by_label._replace(labels=labels))


class WithRealLabels:
    """Judges by several right labels an image too, and leaves out images without any, as "Are we done with ImageNet?"
    does (Beyer et al. 2020, arXiv 2006.07159, section 3).

    real_top1, real_top5: percent of the `real_samples` images with labels for which one of them is the likeliest class,
    or among the five likeliest. labels: of each image of this process, in the order in which it reads them. images:
    with labels, over all processes.
    """

    def __init__(self, scorer: Scorer, labels: Sequence[Sequence[int]], images: int, device: torch.device):
        self.scorer = scorer
        self.images = images
        width = max(map(len, labels), default=0)
        padded = [[*some, *[-1] * (width - len(some))] for some in labels]
        self.real_nR = torch.tensor(padded, dtype=torch.int64, device=device).view(len(labels), width)
        self.done = 0
        self.counts = zeros(3, device)  # images with labels, top-1 right, top-5 right

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.scorer.update(logits, targets)
        real_BR = self.real_nR[self.done : self.done + len(logits)]
        self.done += len(logits)
        right_BT = (top_classes(logits)[:, :, None] == real_BR[:, None]).any(-1)
        counted_B = (real_BR >= 0).any(-1)
        self.counts += torch.stack([counted_B.sum(), right_BT[:, 0].sum(), right_BT.any(-1).sum()])

    def compute(self) -> Scores:
        sum_together([self.counts])
        images, right, among_top = self.counts.tolist()
        if images != self.images:
            raise RuntimeError(f"evaluation counted {images} images with real labels, and there are {self.images}")
        scores = self.scorer.compute()
        top1, top5 = (100 * number / max(images, 1) for number in (right, among_top))
        real = {"real_top1": top1, "real_top5": top5, "real_samples": images}
        text = f"{scores.text}, by real labels top-1 {top1:.2f} % of {images:,}"
        return replace(scores, figures={**scores.figures, **real}, text=text)


class WithPredictions:
    """Keeps what the model took each image for, over all processes.

    places (n,): of this process's images in the data set of N images, in the order in which it reads them.
    """

    def __init__(self, scorer: Scorer, places: Tensor, images: int, device: torch.device):
        self.scorer = scorer
        self.places_n = places.to(device)
        self.done = 0
        self.predicted_N, self.target_N, self.times_N = (zeros(images, device) for _ in range(3))

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.scorer.update(logits, targets)
        places_B = self.places_n[self.done : self.done + len(logits)]
        self.done += len(logits)
        self.predicted_N.index_add_(0, places_B, top_classes(logits)[:, 0])
        self.target_N.index_add_(0, places_B, targets)
        self.times_N.index_add_(0, places_B, torch.ones_like(targets))

    def compute(self) -> Scores:
        sum_together([self.predicted_N, self.target_N, self.times_N])
        if wrong := int((self.times_N != 1).sum()):
            raise RuntimeError(f"evaluation did not judge {wrong} of {len(self.times_N)} images exactly once")
        return replace(self.scorer.compute(), kept=Kept(self.predicted_N.cpu(), self.target_N.cpu()))
