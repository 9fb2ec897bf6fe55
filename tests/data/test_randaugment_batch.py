"""Whole batches: programs against timm's operations one after the other, and what holds for any policy."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_randaugment_reference import FILL, by_timm, differences, pictures
from torch import Tensor

from vmoe.data.augmentation import Augmentation, make_augmentation
from vmoe.data.augmentation.colours import COLOURS
from vmoe.data.augmentation.draws import draw_programs
from vmoe.data.augmentation.geometry import MATRICES
from vmoe.data.augmentation.plan import apply_plan, plan_batch
from vmoe.data.augmentation.program import Program, Step

MEAN = (0.485, 0.456, 0.406)
POLICIES = ("rand-m9-mstd0.5-inc1", "rand-m10-n5-p1-mstd101", "rand-m9-n4-tweights", "3a", "3a-jitter0.3")


def augmentation(policy: str = POLICIES[0]) -> Augmentation:
    return make_augmentation(policy, MEAN)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(images: Tensor, programs: list[Program], *, fuse: bool = True) -> Tensor:
    return apply_plan(images, plan_batch(programs, FILL, *images.shape[2:], fuse=fuse))


def draws(policy: str, count: int, seed: int = 0) -> list[Program]:
    return draw_programs(augmentation(policy).policy_for(32), count, seeded(seed))


def is_geometric(step: Step) -> bool:
    return step.kind in MATRICES


@pytest.mark.parametrize("policy", POLICIES)
def test_programs_without_fusing_are_timms_one_operation_after_the_other(policy):
    """To the byte without geometry; with it, what is off by one may be far off after the next operation, as of
    posterization, but few values are.
    """
    images = pictures(29, 22).repeat(8, 1, 1, 1)
    programs = draws(policy, len(images))
    for found, image, program in zip(run(images, programs, fuse=False), images, programs, strict=True):
        expected = by_timm(image, program)
        if any(map(is_geometric, program)):
            assert (differences(found, expected) > 1).float().mean() < 0.02, program
        else:
            assert torch.equal(found, expected), program


def test_fusing_changes_nothing_where_no_operations_are_in_a_row():
    images = pictures(16, 19).repeat(8, 1, 1, 1)
    programs = [
        program
        for program in draws("rand-m9-n3-mstd0.5-inc1", 200)
        if not any(is_geometric(one) and is_geometric(other) for one, other in pairwise(program))
    ][: len(images)]
    assert torch.equal(run(images, programs), run(images, programs, fuse=False))


def test_fused_translations_by_whole_pixels_are_exact():
    """Nothing is interpolated then. What was moved out stays so: to the left by 5, then to the right by 7."""
    program = (Step("translate_x_abs", 5.0), Step("translate_y_abs", -3.0), Step("translate_x_abs", -7.0, True))
    images = pictures(14, 18)
    moved = run(images, [program] * len(images))
    assert torch.equal(moved, torch.stack([by_timm(image, program) for image in images]))
    expected = torch.tensor(FILL).view(3, 1, 1).repeat(len(images), 1, 14, 18)
    expected[:, :, 3:, 7:] = images[:, :, :-3, 5:16].int()
    assert torch.equal(moved.int(), expected.int())


def test_turning_there_and_back_loses_the_corners_alone():
    """Fused, the image comes back as it was; its corners were outside in between."""
    images = pictures(32, 32)
    fused = run(images, [(Step("rotate", 30.0), Step("rotate", -30.0))] * len(images))
    assert differences(fused[:, :, 8:24, 8:24], images[:, :, 8:24, 8:24]).max() <= 1
    assert fused[:, :, 0, 0].tolist() == [list(FILL)] * len(images)


@pytest.mark.parametrize("cubic", [False, True])
def test_the_last_of_fused_operations_says_how_to_interpolate(cubic):
    """A shift by whole pixels before it is none, so that the inner pixels are those of PIL."""
    program = (Step("translate_x_abs", 2.0, not cubic), Step("rotate", 20.0, cubic))
    images = pictures(40, 40)
    expected = torch.stack([by_timm(image, program) for image in images])
    assert differences(run(images, [program] * len(images)), expected)[:, :, 10:30, 10:30].max() <= 1


def test_fused_operations_look_like_timms_on_smooth_pictures():
    """timm cuts fractions off twice, by 0.5 in the mean each time; it fills the same pixels but for a seam."""
    images = pictures(64, 64)[:2]
    geometric = [Step("rotate", 27.0), Step("shear_x", -0.27, True), Step("shear_y", 0.2), Step("translate_x_rel", 0.3)]
    for first in geometric:
        for second in geometric:
            if first != second:
                expected = torch.stack([by_timm(image, (first, second)) for image in images])
                difference = differences(run(images, [(first, second)] * 2), expected)
                assert difference.float().mean() < 2.5
                assert (difference.amax(1) > 8).float().mean() < 0.06  # the seam, of about 1 of 64 pixels a side


@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_does_not_depend_on_its_batch(policy):
    images = pictures(20, 21).repeat(4, 1, 1, 1)
    programs = draws(policy, len(images))
    order = torch.randperm(len(images), generator=seeded(1))
    together = run(images, programs)
    assert torch.equal(run(images[order], [programs[i] for i in order]), together[order])
    alone = torch.cat([run(image[None], [program]) for image, program in zip(images, programs, strict=True)])
    assert torch.equal(alone, together)


def test_equal_images_of_a_batch_become_different_ones():
    images = pictures(16, 16)[:1].repeat(32, 1, 1, 1)
    different = {image.numpy().tobytes() for image in augmentation("rand-m9-mstd0.5-inc1-p1")(images)}
    assert len(different) >= 24  # of 15 x 15 pairs with noise, two are rarely alike


@pytest.mark.parametrize("policy", POLICIES)
def test_the_seed_says_what_comes_out_and_nothing_else_does(policy):
    augment, images = augmentation(policy), pictures(12, 15).repeat(3, 1, 1, 1)
    before = images.clone()
    first = augment(images, seeded(3))
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert torch.equal(augment(images, seeded(3)), first)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert not torch.equal(augment(images, seeded(4)), first)
    torch.manual_seed(3)
    assert torch.equal(augment(images), first)
    assert torch.equal(images, before)


@pytest.mark.parametrize("shape", [(1, 3, 7, 7), (1, 3, 1, 5), (2, 3, 2, 2), (3, 3, 31, 16), (0, 3, 8, 8)])
@pytest.mark.parametrize("policy", POLICIES)
def test_any_shape_goes_in_and_comes_out(policy, shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    augmented = augmentation(policy)(images)
    assert augmented.shape == shape
    assert augmented.dtype == torch.uint8


def test_memory_formats_agree():
    images = pictures(12, 15).repeat(4, 1, 1, 1)
    augment = augmentation("rand-n5-p1")
    other = augment(images.to(memory_format=torch.channels_last), seeded(0))
    assert torch.equal(other, augment(images, seeded(0)))


def test_nothing_is_read_from_the_device():
    """Tensors without values could not be. Of all kinds of operations, geometric ones also two in a row."""
    policies = ("rand-p1", "rand-t3a-n1-p1", "3a-jitter0.3")
    programs = [program for policy in policies for program in draws(policy, 100)]
    images = torch.zeros(len(programs), 3, 9, 7, dtype=torch.uint8, device="meta")
    kinds = {step.kind for program in programs for step in program}
    assert kinds == {*COLOURS, *MATRICES} - {"translate_x_abs", "translate_y_abs"}
    assert run(images, programs).shape == images.shape


def test_two_operations_an_image_need_one_time_for_warps():
    plan = plan_batch(draws("rand-p1", 200), FILL, 8, 8)
    warps = [any(group.key.kind == "warp" for group in groups) for groups in plan.times]
    assert warps == [False, True, False]


def test_images_of_another_kind_are_refused():
    augment = augmentation()
    for images in (torch.rand(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 8, 8).byte()):
        with pytest.raises(ValueError, match=r"allowed: uint8 \(B, 3, H, W\)"):
            augment(images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_gpu_agrees_and_is_not_waited_for(policy):
    augment, images = augmentation(policy), pictures(29, 22).repeat(40, 1, 1, 1)
    on_device = images.cuda()
    augment(on_device)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        augmented = augment(on_device, seeded(0))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (differences(augmented.cpu(), augment(images, seeded(0))) > 1).float().mean() < 1e-3
