"""How good a classifier is: accuracy over all images and in each class, loss, and calibration, each image once.

Counts are integers on the device, which add up over batches and processes in any order to the same figures; nothing
waits for them before the end. Shapes: B images of a batch, C classes, M bins of confidence.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.task.evaluator import ClassificationEvaluator
from torch import Tensor
from torch.nn import functional

from vmoe.moe.collective import sum_over_processes, sum_together

from .task import Figure, LabelCounts, Scores

BINS = 15  # of equal width, as in the table of Guo et al. 2017
FIXED_POINT = 2**30  # of confidences, so that their sums add up exactly; room for 2^33 images
TOP = 5


class Accuracy:
    """top1, top5: percent (top5 over as many classes as there are, if fewer). loss: mean cross-entropy.

    calibration_error: expected calibration error, Σ_m |B_m| / N · |accuracy(B_m) − confidence(B_m)| over the bins B_m
    of the images whose largest probability is in ((m − 1) / M, m / M]; 0 to 1 (Guo et al. 2017, arXiv 1706.04599, eq.
    5). class_accuracy: percent, of the classes that have images.
    """

    def __init__(self, num_classes: int, device: torch.device):
        self.evaluator = ClassificationEvaluator(device)
        self.seen_C, self.correct_C = zeros(num_classes, device), zeros(num_classes, device)
        self.binned_M, self.correct_M, self.confidence_M = (zeros(BINS, device) for _ in range(3))

    @torch.no_grad()
    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.evaluator.update(logits, targets)
        correct_B = (top_classes(logits)[:, 0] == targets).long()
        self.seen_C.index_add_(0, targets, torch.ones_like(targets))
        self.correct_C.index_add_(0, targets, correct_B)
        confidence_B = functional.softmax(logits.float(), dim=-1).amax(-1).double().nan_to_num(0)
        bin_B = ((confidence_B * BINS).ceil().long() - 1).clamp(0, BINS - 1)
        self.binned_M.index_add_(0, bin_B, torch.ones_like(targets))
        self.correct_M.index_add_(0, bin_B, correct_B)
        self.confidence_M.index_add_(0, bin_B, (confidence_B * FIXED_POINT).round().long())

    def counts(self) -> list[Tensor]:
        """All that was counted, as int64 tensors that add up; the sum of losses, a float64, aside."""
        by_class, by_bin = [self.seen_C, self.correct_C], [self.binned_M, self.correct_M, self.confidence_M]
        return [self.evaluator.counts, *by_class, *by_bin]

    def compute(self) -> Scores:
        sum_together(self.counts())
        sum_over_processes(self.evaluator.loss_sum)
        return self.scores()

    def scores(self) -> Scores:
        """Of what was counted, in this process or, after `compute`, in all. Raises `RuntimeError` where counts of the
        same images differ.
        """
        samples, right, _ = (int(count) for count in self.evaluator.counts)
        require_equal("images", samples, by_class=self.seen_C, by_confidence=self.binned_M)
        require_equal("right answers", right, by_class=self.correct_C, by_confidence=self.correct_M)
        summary = self.evaluator.summary()
        by_label = LabelCounts(tuple(range(len(self.seen_C))), *(_numbers(n) for n in (self.seen_C, self.correct_C)))
        top1, top5 = summary["top1"], summary["top5"]
        figures: dict[str, Figure | Mapping[str, Figure]] = {
            "top1": top1,
            "top5": top5,
            "loss": summary["loss"],
            "eval_samples": samples,
            "calibration_error": self.calibration_error(),
            "class_accuracy": describe_classes(by_label),
        }
        text = f"top-1 {top1:.2f} %, top-5 {top5:.2f} % of {samples:,}"
        return Scores(figures, text, rank=top1, units=samples, by_label=by_label)

    def calibration_error(self) -> float:
        """Σ_m |right − Σ confidence| / N, as |B_m| cancels."""
        gaps = (self.correct_M * FIXED_POINT - self.confidence_M).abs()
        return int(gaps.sum()) / FIXED_POINT / max(int(self.binned_M.sum()), 1)


def describe_classes(by_label: LabelCounts) -> dict[str, Figure]:
    """classes: with images. mean, lowest, highest: of their accuracies, in percent; None without any."""
    pairs = zip(by_label.seen, by_label.correct, strict=True)
    shares = [100 * correct / seen for seen, correct in pairs if seen]
    mean = sum(shares) / len(shares) if shares else None
    ends = {"lowest": min(shares, default=None), "highest": max(shares, default=None)}
    return {"classes": len(shares), "mean": mean, **ends}


def top_classes(logits: Tensor) -> Tensor:
    """(B, 5), or as many as there are: the likeliest classes, as timm's evaluator takes them, ties included."""
    return logits.detach().float().topk(min(TOP, logits.shape[-1]), dim=-1).indices


def zeros(length: int, device: torch.device) -> Tensor:
    return torch.zeros(length, dtype=torch.int64, device=device)


def require_equal(what: str, expected: int, **counts: Tensor) -> None:
    """Raise `RuntimeError` unless each of these counts of the same sums up to the number expected."""
    found = {name: int(count.sum()) for name, count in counts.items()}
    if any(number != expected for number in found.values()):
        raise RuntimeError(f"evaluation counted {expected} {what}, and {found}")


def _numbers(counts: Tensor) -> tuple[int, ...]:
    return tuple(counts.tolist())
