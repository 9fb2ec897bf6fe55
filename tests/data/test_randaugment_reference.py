"""What the tests of augmentation compare with: timm's operations, applied by PIL to one image after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import auto_augment
from torch import Tensor

from vmoe.data.augmentation.program import Step

FILL = (124, 116, 104)
WITHOUT_ARGUMENT = ("auto_contrast", "equalize", "invert")
OF_INTEGERS = ("posterize", "solarize", "solarize_add")


def to_pil(image_3HW: Tensor) -> Image.Image:
    return Image.fromarray(image_3HW.permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def by_timm(image_3HW: Tensor, program: Sequence[Step]) -> Tensor:
    image = to_pil(image_3HW)
    for step in program:
        if step.kind == "posterize" and step.argument == 0:
            image = Image.new("RGB", image.size)  # as from Pillow before 13, which refuses
            continue
        argument = int(step.argument) if step.kind in OF_INTEGERS else step.argument
        image = getattr(auto_augment, step.kind)(
            image,
            *(() if step.kind in WITHOUT_ARGUMENT else (argument,)),
            resample=Image.Resampling.BICUBIC if step.cubic else Image.Resampling.BILINEAR,
            fillcolor=FILL,
        )
    return from_pil(image)


def pictures(height: int, width: int) -> Tensor:
    """uint8 (5, 3, height, width): two smooth ones, noise, one of few levels, and one with a channel of one value."""
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(2, 3, 5, 5, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").mul(255).clamp(0, 255)
    noise = 256 * torch.rand(3, 3, height, width, generator=generator)
    noise[1] = 90 + noise[1] / 8
    noise[2, 1] = 77
    return torch.cat([smooth, noise]).to(torch.uint8)


def differences(images: Tensor, others: Tensor) -> Tensor:
    return (images.int() - others.int()).abs()


def test_steps_are_applied_in_order():
    image = torch.tensor([10, 200, 60], dtype=torch.uint8).view(3, 1, 1)
    program = [Step("invert"), Step("solarize", 128.0)]  # 245, 55, 195; from 128 on inverted back
    assert by_timm(image, program).flatten().tolist() == [10, 55, 60]
    assert by_timm(image, program[::-1]).flatten().tolist() == [245, 200, 195]  # 10, 55, 60; all inverted


@pytest.mark.parametrize("kind", ["rotate", "shear_x"])
def test_what_moves_in_is_filled(kind):
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    corner = by_timm(image, [Step(kind, 20.0 if kind == "rotate" else -0.3)])[:, -1, 0]
    assert corner.tolist() == list(FILL)
