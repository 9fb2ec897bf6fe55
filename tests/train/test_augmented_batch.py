"""What a training batch goes through before the model, and the loss of what comes out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vmoe.config import AugmentConfig
from vmoe.data import Normalize, make_augmentation
from vmoe.train.augment import Augment
from vmoe.train.images import ImageTask

CPU = torch.device("cpu")
CLASSES = 5


class Seen(nn.Module):
    """Keeps its input, and gives random logits that have a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(1)))

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return self.logits


def task_of(policy=None, *, loss="cross_entropy", smoothing=0.0, channels_last=False, **augment):
    config = AugmentConfig(policy=policy, **augment)
    operations = None if policy is None else make_augmentation(policy, (0.5, 0.5, 0.5), interpolation="bicubic")
    augmented = Augment(config, operations, loss=loss, label_smoothing=smoothing, num_classes=CLASSES, device=CPU)
    normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    sizes = {"num_classes": CLASSES, "image_size": 16, "train_sizes": (16,)}
    return ImageTask(normalize, augmented, **sizes, device=CPU, channels_last=channels_last)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return images, torch.arange(8) % CLASSES


def test_without_augmentation_the_model_sees_the_normalised_batch() -> None:
    task, seen, (images, labels) = task_of(), Seen(), batch()
    loss = task.training_loss(seen, images, labels)
    assert torch.equal(seen.images, task.normalize(images))
    torch.testing.assert_close(loss, functional.cross_entropy(seen.logits, labels))


def test_a_policy_works_on_the_images_as_they_are_stored() -> None:
    policy = "rand-m9-mstd0.5-inc1"
    task, seen, (images, labels) = task_of(policy), Seen(), batch()
    torch.manual_seed(3)
    task.training_loss(seen, images, labels)
    torch.manual_seed(3)
    expected = make_augmentation(policy, (0.5, 0.5, 0.5), interpolation="bicubic")(images)
    assert not torch.equal(expected, images)
    assert torch.equal(seen.images, task.normalize(expected))


def test_a_batch_is_erased_before_it_is_mixed() -> None:
    """As in timm and DeiT: what is erased of an image is mixed into its partner."""
    task, seen, (images, labels) = task_of(mixup=1.0, mix_switch=0.0), Seen(), batch()
    task.augment.erasing = lambda normalised: torch.ones_like(normalised) * torch.arange(8.0).view(8, 1, 1, 1)
    torch.manual_seed(0)
    task.training_loss(seen, images, labels)
    firsts = seen.images[:, 0, 0, 0]
    assert torch.allclose(firsts + firsts.flip(0), torch.full((8,), 7.0))  # λ i + (1 - λ)(7 - i), and its mirror image
    assert not torch.equal(firsts, torch.arange(8.0))


@pytest.mark.parametrize("mixed", [False, True])
def test_bce_is_the_mean_over_classes_and_what_is_mixed_in_is_present(mixed: bool) -> None:
    smoothing = 0.0 if mixed else 0.1
    task, seen, (images, labels) = task_of(loss="bce", smoothing=smoothing, mixup=0.8 * mixed), Seen(), batch()
    present = functional.one_hot(labels, CLASSES)
    if mixed:
        present |= present.flip(0)
    targets = present * (1 - smoothing) + smoothing / CLASSES
    loss = task.training_loss(seen, images, labels)
    expected = functional.binary_cross_entropy_with_logits(seen.logits, targets.float())
    torch.testing.assert_close(loss, expected)


def test_channels_last_changes_the_layout_alone() -> None:
    images, _ = batch()
    plain, last = task_of().prepare(images), task_of(channels_last=True).prepare(images)
    assert torch.equal(plain, last)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert not plain.is_contiguous(memory_format=torch.channels_last)


def test_what_is_drawn_follows_from_the_seed() -> None:
    from vmoe.train.loop import seed_step

    task, seen, (images, labels) = task_of("3a-jitter0.3", mixup=0.8, cutmix=1.0, erasing=0.5), Seen(), batch()
    results = []
    for step in (4, 4, 5):
        seed_step(0, step, 0)
        loss = task.training_loss(seen, images, labels)
        results.append((seen.images.clone(), loss.item()))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not torch.equal(results[0][0], results[2][0])
