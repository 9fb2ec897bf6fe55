"""Each operation at each level against timm's own, on made pictures and on photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from test_randaugment_reference import FILL, OF_INTEGERS, by_timm, differences, from_pil, pictures, to_pil
from timm.data import auto_augment
from torch import Tensor

from vmoe.data.augmentation.geometry import MATRICES
from vmoe.data.augmentation.plan import apply_plan, plan_batch
from vmoe.data.augmentation.policy import Operation, parse_policy
from vmoe.data.augmentation.program import Step

MEAN = (0.485, 0.456, 0.406)  # whose colour is FILL
POLICIES = {"grows": "rand-inc1-mmax30", "timm's older": "rand-mmax30", "weighted": "rand-inc1-t3aw"}
OPERATIONS = {
    operation.name: operation
    for policy in POLICIES.values()
    for operation in parse_policy(policy, 64, MEAN).operations
    if operation.kind != "gaussian_blur"  # tests of 3-Augment have it
}
LEVELS = (0, 3, 9, 10, 25)
SIZES = ((33, 47), (20, 20), (2, 1))
MODES = {False: Image.Resampling.BILINEAR, True: Image.Resampling.BICUBIC}


def ours(images: Tensor, step: Step) -> Tensor:
    return apply_plan(images, plan_batch([(step,)] * len(images), FILL, *images.shape[2:]))


def timms(images: Tensor, name: str, level: float, *, negated: bool, cubic: bool, monkeypatch) -> Tensor:
    """By timm's `AugmentOp`, whose coin falls as asked; black where no bits are kept, which Pillow 13 refuses."""
    settings = {"img_mean": FILL, "interpolation": MODES[cubic], "magnitude_max": 30, "translate_const": 28}
    operation = auto_augment.AugmentOp(name, prob=1.0, magnitude=level, hparams=settings)
    monkeypatch.setattr(auto_augment.random, "random", lambda: 0.75 if negated else 0.25)
    if operation.aug_fn is auto_augment.posterize and operation.level_fn(level, {})[0] < 1:
        return torch.zeros_like(images)
    return torch.stack([from_pil(operation(to_pil(image))) for image in images])


def step_of(operation: Operation, level: float, *, negated: bool, cubic: bool = False) -> Step:
    return Step(operation.kind, operation.argument(level, negated), cubic)


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if operation.kind not in MATRICES])
def test_colours_are_timms_to_the_byte(name, negated, monkeypatch):
    for height, width in SIZES:
        images = pictures(height, width)
        for level in LEVELS:
            expected = timms(images, name, level, negated=negated, cubic=False, monkeypatch=monkeypatch)
            assert torch.equal(ours(images, step_of(OPERATIONS[name], level, negated=negated)), expected)


GEOMETRY = {
    **{name: operation for name, operation in OPERATIONS.items() if operation.kind in MATRICES},
    # of no set that a string names
    "TranslateX": Operation("TranslateX", "translate_x_abs", 10, (lambda m: 2.8 * m, lambda m: -2.8 * m)),
    "TranslateY": Operation("TranslateY", "translate_y_abs", 10, (lambda m: 2.8 * m, lambda m: -2.8 * m)),
}


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_is_timms_but_for_float32(name, negated, cubic, monkeypatch):
    """Fractions are cut off: a value next to an integer may fall on either side of it, here as with float64. A point
    on the very border of the source may, too; none does here.
    """
    found = []
    for height, width in SIZES:
        images = pictures(height, width)
        for level in LEVELS:
            expected = timms(images, name, level, negated=negated, cubic=cubic, monkeypatch=monkeypatch)
            warped = ours(images, step_of(GEOMETRY[name], level, negated=negated, cubic=cubic))
            found.append(differences(warped, expected).flatten())
    difference = torch.cat(found).float()
    assert difference.max() <= 1
    assert difference.mean() < 0.05


UNCHANGED = {"rotate", "shear_x", "shear_y", "translate_x_rel", "translate_y_rel", "solarize", "solarize_add"}
UNCHANGED |= {"color", "contrast", "brightness", "sharpness"}


@pytest.mark.parametrize("cubic", [False, True])
def test_growing_operations_begin_with_nothing(cubic):
    images = pictures(31, 18)
    for operation in parse_policy("rand-m0-inc1", 31, MEAN).operations:
        if operation.kind in UNCHANGED:
            for negated in (False, True):
                assert torch.equal(ours(images, step_of(operation, 0, negated=negated, cubic=cubic)), images)


def test_a_rotation_by_half_a_turn_is_exact():
    images = pictures(16, 21)
    for cubic in (False, True):
        assert torch.equal(ours(images, Step("rotate", 180.0, cubic)), images.flip(2, 3))


def test_all_images_and_arguments_of_a_group_keep_to_themselves():
    """Different arguments side by side give what each gives alone."""
    images = pictures(24, 17)
    for name, operation in {**OPERATIONS, **GEOMETRY}.items():
        steps = [step_of(operation, level, negated=level == 9) for level in LEVELS]
        together = apply_plan(images, plan_batch([(step,) for step in steps], FILL, 24, 17))
        alone = torch.cat([ours(image[None], step) for image, step in zip(images, steps, strict=True)])
        assert torch.equal(together, alone), name


def photographs(shared_data: Path, size: int, count: int) -> Tensor:
    folders = sorted((shared_data / "imagenet_sample" / "train").iterdir())[:count]
    paths = [next(folder.iterdir()) for folder in folders]
    return torch.stack([from_pil(Image.open(path).convert("RGB").resize((size, size))) for path in paths])


def test_photographs_look_as_with_timm(shared_data):
    images = photographs(shared_data, 64, 4)
    for name, operation in {**OPERATIONS, **GEOMETRY}.items():
        step = step_of(operation, 9, negated=False, cubic=True)
        expected = torch.stack([by_timm(image, [step]) for image in images])
        assert differences(ours(images, step), expected).max() <= (operation.kind in MATRICES), name


def test_levels_of_integers_are_integers():
    for operation in OPERATIONS.values():
        if operation.kind in OF_INTEGERS:
            assert all(
                operation.argument(level, False) == int(operation.argument(level, False)) for level in (1.3, 9.9)
            )
