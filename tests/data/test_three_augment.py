"""3-Augment: one of grayscale, solarize and blur for each image, and torchvision's colour jitter after it."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import torch
from PIL import ImageFilter
from test_randaugment_draws import MEAN, assert_fits, draw
from test_randaugment_reference import FILL, by_timm, from_pil, pictures, to_pil
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as tv

from vmoe.data.augmentation import make_augmentation
from vmoe.data.augmentation.plan import apply_plan, plan_batch
from vmoe.data.augmentation.program import Program, Step

ADJUST = {"brightness": tv.adjust_brightness, "contrast": tv.adjust_contrast, "color": tv.adjust_saturation}


def run(images: torch.Tensor, *programs: Program) -> torch.Tensor:
    programs = programs * len(images) if len(programs) == 1 else programs
    return apply_plan(images, plan_batch(programs, FILL, *images.shape[2:]))


def test_each_image_gets_one_of_three():
    programs = draw("3a")
    assert {len(program) for program in programs} == {1}
    steps = [program[0] for program in programs]
    counts = Counter(step.kind for step in steps)
    assert_fits([counts[kind] for kind in ("solarize", "desaturate", "gaussian_blur")], [1 / 3] * 3)
    assert {step.argument for step in steps if step.kind == "solarize"} == {128}
    assert {step.argument for step in steps if step.kind == "desaturate"} == {1}
    radii = [step.argument for step in steps if step.kind == "gaussian_blur"]
    tenths = Counter(int((radius - 0.1) / 1.9 * 10) for radius in radii)  # uniform from 0.1 to 2
    assert_fits([tenths[i] for i in range(10)], [0.1] * 10)


def test_jitter_is_drawn_as_torchvisions():
    """Factors uniform from 1 - s to 1 + s, by themselves, in an order of which each is as likely."""
    jitters = [program[1:] for program in draw("3a-jitter0.3")]
    orders = Counter(tuple(step.kind for step in jitter) for jitter in jitters)
    assert_fits([orders[order] for order in permutations(ADJUST)], [1 / 6] * 6)
    jitter = ColorJitter(0.3, 0.3, 0.3)
    for kind, bounds in zip(ADJUST, (jitter.brightness, jitter.contrast, jitter.saturation), strict=True):
        low, high = bounds
        factors = [step.argument for steps in jitters for step in steps if step.kind == kind]
        assert_fits([Counter(int((f - low) / (high - low) * 8) for f in factors)[i] for i in range(8)], [1 / 8] * 8)


def test_jitter_beyond_one_stays_above_zero():
    factors = [step.argument for program in draw("3a-jitter1.5", 500) for step in program[1:]]
    assert min(factors) >= 0
    assert 2 < max(factors) <= 2.5


def test_jitter_is_applied_as_torchvisions_to_pil_images():
    images = pictures(21, 16).repeat(5, 1, 1, 1)
    programs = [program[1:] for program in draw("3a-jitter0.4", len(images))]
    for found, image, program in zip(run(images, *programs), images, programs, strict=True):
        expected = to_pil(image)
        for step in program:
            expected = ADJUST[step.kind](expected, step.argument)
        assert torch.equal(found, from_pil(expected))


def test_no_jitter_is_none():
    assert make_augmentation("3a", MEAN).policy_for(224).jitter == 0
    assert make_augmentation("3a-jitter0.3", MEAN).policy_for(224).jitter == 0.3


def test_blur_is_pils_to_the_byte():
    for height, width in ((33, 47), (3, 2), (1, 1)):
        images = pictures(height, width)
        for radius in (0.0, 0.1, 0.37, 0.8, 1.0, 1.42, 1.9, 2.0):
            blurred = [from_pil(to_pil(image).filter(ImageFilter.GaussianBlur(radius))) for image in images]
            assert torch.equal(run(images, (Step("gaussian_blur", radius),)), torch.stack(blurred)), radius


def test_grayscale_and_solarize_are_timms_to_the_byte():
    images = pictures(18, 30)
    for step in (Step("desaturate", 1.0), Step("desaturate", 0.4), Step("solarize", 128.0)):
        assert torch.equal(run(images, (step,)), torch.stack([by_timm(image, (step,)) for image in images]))
    grey = run(images, (Step("desaturate", 1.0),))
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
