"""Accuracy by class, calibration and the other ways to judge, against their definitions in plain Python and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from vmoe.train.accuracy import FIXED_POINT, Accuracy
from vmoe.train.judging import Restricted, WithPredictions, WithRealLabels, mean_of_views, mirror

CPU = torch.device("cpu")
IMAGES, CLASSES = 301, 7


@pytest.fixture(scope="module")
def case():
    """Logits of every confidence, and labels that no class has as often as another; class 6 has none."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, CLASSES, generator=generator) * torch.linspace(0.1, 6, IMAGES)[:, None]
    labels = torch.randint(0, 6, (IMAGES,), generator=generator)
    labels = torch.where(torch.rand(IMAGES, generator=generator) < 0.5, logits[:, :6].argmax(1), labels)
    return logits, labels


def judged(scorer, logits, labels, batch=64):
    for start in range(0, len(labels), batch):
        scorer.update(logits[start : start + batch], labels[start : start + batch])
    return scorer


def expected_calibration_error(confidences: list[float], right: list[bool], bins: int = 15) -> float:
    """Guo et al. 2017, eq. 3, 4 and 5, word by word."""
    error = 0.0
    for m in range(1, bins + 1):
        members = [i for i, p in enumerate(confidences) if (m - 1) / bins < p <= m / bins]
        if members:
            accuracy = sum(right[i] for i in members) / len(members)
            confidence = sum(confidences[i] for i in members) / len(members)
            error += len(members) / len(confidences) * abs(accuracy - confidence)
    return error


def test_calibration_is_that_of_the_definition(case):
    logits, labels = case
    confidences, predicted = functional.softmax(logits, dim=-1).max(1)
    right = (predicted == labels).tolist()
    found = judged(Accuracy(CLASSES, CPU), logits, labels).compute().figures["calibration_error"]
    assert found == pytest.approx(expected_calibration_error(confidences.double().tolist(), right), abs=1 / FIXED_POINT)
    assert 0.05 < found < 0.5, "the case says nothing unless the model is off"


def test_calibration_by_hand():
    """Two images at confidence 0.9, one of them right, and one at 1, the end of the last bin, right: the error is
    2/3 · |1/2 − 0.9| + 1/3 · 0.
    """
    nine_in_ten = math.log(9)
    logits = torch.tensor([[nine_in_ten, 0], [nine_in_ten, 0], [100, 0]])
    accuracy = judged(Accuracy(2, CPU), logits, torch.tensor([0, 1, 0]))
    assert accuracy.binned_M.tolist() == [0] * 13 + [2, 1]  # 0.9 is in (13/15, 14/15]
    assert accuracy.compute().figures["calibration_error"] == pytest.approx(0.8 / 3, abs=1e-7)


def test_classes_are_counted_as_numpy_counts_them(case):
    logits, labels = case
    right = (logits.argmax(1) == labels).numpy()
    seen = np.bincount(labels.numpy(), minlength=CLASSES)
    correct = np.bincount(labels.numpy()[right], minlength=CLASSES)
    scores = judged(Accuracy(CLASSES, CPU), logits, labels).compute()
    assert scores.by_label.labels == tuple(range(CLASSES))
    assert scores.by_label.seen == tuple(seen)
    assert scores.by_label.correct == tuple(correct)
    shares = 100 * correct[:6] / seen[:6]
    assert scores.figures["class_accuracy"] == {
        "classes": 6,
        "mean": pytest.approx(shares.mean()),
        "lowest": pytest.approx(shares.min()),
        "highest": pytest.approx(shares.max()),
    }
    assert scores.figures["top1"] == pytest.approx(100 * right.mean())
    assert scores.units == scores.figures["eval_samples"] == IMAGES


def test_counts_add_up_in_any_order_and_over_any_number_of_processes(case):
    """To the last bit; the mean loss, of float32 means of batches, to their rounding."""
    logits, labels = case
    alone = judged(Accuracy(CLASSES, CPU), logits, labels).compute()
    for world in (2, 3):
        shares = [judged(Accuracy(CLASSES, CPU), logits[r::world], labels[r::world], batch=17) for r in range(world)]
        first, *others = shares
        for other in others:
            for count, more in zip(first.counts(), other.counts(), strict=True):
                count += more
            first.evaluator.loss_sum += other.evaluator.loss_sum
        together = first.scores()
        figures, expected = dict(together.figures), dict(alone.figures)
        assert figures.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-6)
        assert figures == expected
        assert together.by_label == alone.by_label


def test_ties_are_the_same_answer_for_every_count():
    """Equal logits, as low precisions give them: top-1 and the classes' counts speak of one prediction."""
    logits = torch.zeros(12, 6, dtype=torch.bfloat16)
    scores = judged(Accuracy(6, CPU), logits, torch.arange(12) % 6).compute()
    assert sum(scores.by_label.correct) * 100 / 12 == pytest.approx(scores.figures["top1"])


@pytest.mark.parametrize("count", ["seen_C", "correct_C", "binned_M", "correct_M"])
def test_counts_that_differ_are_no_result(case, count):
    accuracy = judged(Accuracy(CLASSES, CPU), *case)
    getattr(accuracy, count)[0] += 1
    with pytest.raises(RuntimeError, match=r"evaluation counted \d+ (images|right answers), and"):
        accuracy.compute()


# --- restricted to some classes --------------------------------------------------------------------------


def test_restricted_to_some_classes_the_model_chooses_among_these():
    """Image 0 is taken for class 3, which does not count, then for 5; image 1 for 1, which it is not."""
    logits = torch.tensor([[0.0, 1, 0, 9, 0, 2], [0, 3, 0, 9, 0, 1]])
    scores = judged(Restricted(Accuracy(2, CPU), (1, 5), 6, CPU), logits, torch.tensor([5, 5])).compute()
    assert scores.figures["top1"] == 50
    # cross-entropy over the two: ln(1 + e^(1-2)) and ln(1 + e^(3-1))
    loss = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert scores.figures["loss"] == pytest.approx(loss, rel=1e-6)
    assert scores.by_label == ((1, 5), (0, 2), (0, 1))


def test_restricted_to_all_classes_nothing_changes(case):
    logits, labels = case
    restricted = Restricted(Accuracy(CLASSES, CPU), range(CLASSES), CLASSES, CPU)
    assert judged(restricted, logits, labels).compute() == judged(Accuracy(CLASSES, CPU), logits, labels).compute()


# --- several right labels --------------------------------------------------------------------------------


def test_real_labels_by_hand():
    """Image i is taken for class i of eight, then for i + 1, and so on. {0} of image 0: right. {0, 2} of image 1: 2 is
    second, so among the five. None of image 2: not counted. {2} of image 3: its last. {1, 4} of image 4: right.
    """
    logits = torch.stack([-torch.remainder(torch.arange(8) - first, 8).float() for first in range(5)])
    real = [[0], [0, 2], [], [2], [1, 4]]
    scorer = WithRealLabels(Accuracy(8, CPU), real, images=4, device=CPU)
    scores = judged(scorer, logits, torch.zeros(5, dtype=torch.int64), batch=2).compute()
    assert scores.figures["real_top1"] == 50
    assert scores.figures["real_top5"] == 75
    assert scores.figures["real_samples"] == 4
    assert scores.figures["top1"] == 20, "the labels of the folders count all five images as ever"


def test_an_image_with_real_labels_that_was_not_judged_is_no_result():
    scorer = WithRealLabels(Accuracy(2, CPU), [[0], [1]], images=3, device=CPU)
    judged(scorer, torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="2 images with real labels, and there are 3"):
        scorer.compute()


# --- predictions, views ----------------------------------------------------------------------------------


def test_predictions_lie_where_the_images_do(case):
    """One of two processes reads every second image."""
    logits, labels = case
    shares = []
    for rank in range(2):
        places = torch.arange(rank, IMAGES, 2)
        shares.append(
            judged(WithPredictions(Accuracy(CLASSES, CPU), places, IMAGES, CPU), logits[places], labels[places])
        )
    with pytest.raises(RuntimeError, match=f"did not judge 150 of {IMAGES} images exactly once"):
        shares[0].compute()
    for name in ("predicted_N", "target_N", "times_N"):
        getattr(shares[1], name).add_(getattr(shares[0], name))
    kept = shares[1].compute().kept
    assert kept.predicted.equal(logits.argmax(1))
    assert kept.target.equal(labels)


def test_views_are_averaged_as_probabilities():
    one, other = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(1)).unbind()
    mean = functional.softmax(mean_of_views(one, other), dim=-1)
    assert mean.allclose((functional.softmax(one, -1) + functional.softmax(other, -1)) / 2, atol=1e-6)
    # (1/2, 1/2) and (9/10, 1/10) average to (7/10, 3/10); their mean logits give odds of 3, (3/4, 1/4)
    half, sure = torch.zeros(1, 2), torch.tensor([[math.log(9.0), 0.0]])
    assert mean_of_views(half, sure).exp().tolist()[0] == pytest.approx([0.7, 0.3])


def test_a_mirror_image_is_left_for_right():
    image = torch.arange(6).view(1, 1, 2, 3)
    assert mirror(image).tolist() == [[[[2, 1, 0], [5, 4, 3]]]]
