"""How images are judged: by which classes, by which labels, in how many views. docs/evaluation.md has the protocols."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.data import ImageNetInfo

from vmoe.config import ConfigError
from vmoe.data import Loader
from vmoe.data.real_labels import read_real_labels, real_labels_by_image
from vmoe.train.accuracy import Accuracy
from vmoe.train.judging import Restricted, WithPredictions, WithRealLabels, mirror
from vmoe.train.task import Scorer

from .judging import Judge, Judging

BY_NAME = ("same", "some")  # ways of matching classes that leave every one of ImageNet's to choose from


def check_image_judging(judging: Judging, classes: Sequence[str], name: str) -> None:
    """Raise `ConfigError` where a model of these classes, of that name, cannot be judged so, or a file is wrong."""
    if judging.real is None:
        return
    if judging.classes not in BY_NAME:
        raise ConfigError(
            f"--real is given with --classes {judging.classes}, and only ImageNet's own validation images have such"
            f" labels; allowed with --real: --classes {' or '.join(BY_NAME)}"
        )
    if list(classes) != ImageNetInfo().label_names():
        raise ConfigError(
            f"--real numbers ImageNet's 1,000 classes in the order of their folders, and {name} has {len(classes)}"
            " others, or these in another order; allowed: a model of these"
        )
    read_real_labels(judging.real, len(classes))


def judge_images(judging: Judging, loader: Loader, device: torch.device) -> Judge:
    """loader: the evaluation's, with labels of the model. Raises `DataError` for files of other names than --real's."""
    real = None
    if judging.real is not None:
        labels = read_real_labels(judging.real, len(loader.classes))
        real = real_labels_by_image(labels, loader.names(), "data.val")
    judged = loader.own_classes if judging.classes == "subset" else None

    def scorer() -> Scorer:
        found: Scorer = Accuracy(len(loader.classes if judged is None else judged), device)
        if real is not None:
            own = [real[place] for place in loader.indices().tolist()]
            found = WithRealLabels(found, own, sum(map(bool, real)), device)
        if judging.paired:
            found = WithPredictions(found, torch.from_numpy(loader.indices()), loader.samples, device)
        return found if judged is None else Restricted(found, judged, len(loader.classes), device)

    return Judge(scorer, mirror if judging.flip else None)
