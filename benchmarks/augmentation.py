"""Augmentation of a batch on the device against timm's of one PIL image after the other: RandAugment and 3-Augment.

Both take decoded images, timm as PIL images and vmoe as a uint8 batch, which lies on the device, and give images of
the same kind; each draws anew in every round. timm's part is its transform alone, on one core, wherever vmoe runs; on
the CPU vmoe has one core, too. What vmoe does on the host, to draw and to lay the batch out, is also timed alone.

Before that, vmoe's draws are applied by PIL and by vmoe, without fusing what timm does not fuse; PIL's rounding, to
which posterization is sensitive, is why 1e-2 is allowed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import auto_augment
from torch import Tensor
from torchvision.transforms import ColorJitter, Compose

from benchmarks.agree import check
from benchmarks.harness import Clock, Contestant, Timing, count_synchronisations, race
from benchmarks.report import Report, Row, arguments, reporting
from vmoe.data.augmentation import Augmentation, make_augmentation
from vmoe.data.augmentation.draws import draw_programs
from vmoe.data.augmentation.plan import apply_plan, plan_batch
from vmoe.data.augmentation.program import Program

POLICIES = ("rand-m9-mstd0.5-inc1", "3a-jitter0.3")
INTERPOLATIONS = {"random": None, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MEAN = (0.485, 0.456, 0.406)
FILL = (124, 116, 104)
BATCHES = {"cpu": 32, "cuda": 256}
TOLERANCE = 1e-2
BUDGET = {"cpu": 60, "cuda": 60}
COLUMNS = ("policy", "interpolation", "who", "ms an image", "over timm", "syncs")

Transform = Callable[[Image.Image], Image.Image]


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    torch.set_num_threads(1)
    with reporting(options) as report:
        batch = options.batch or BATCHES[options.device]
        works = [
            (policy, interpolation)
            for policy in options.policies
            for interpolation in (options.interpolations if policy.startswith("rand") else ["random"])
        ]
        clock = Clock(options.budget, len(works))
        rows: list[Row] = []
        try:
            for policy, interpolation in works:
                rows += measure(report, policy, interpolation, draw_images(batch, options.size), clock)
        finally:
            note = f"Batches of {batch} images of {options.size} x {options.size} pixels."
            report.add("Augmentation of a batch", COLUMNS, rows, note)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments("augmentation", __doc__, BUDGET)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), help="as `make_augmentation` takes them")
    parser.add_argument(
        "--interpolations", nargs="+", choices=list(INTERPOLATIONS), default=["random", "bicubic"], help="of rand"
    )
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, help="images; by default 32 on a CPU and 256 on a GPU")
    return parser.parse_args(argv)


def draw_images(batch: int, size: int) -> Tensor:
    """uint8 (batch, 3, size, size): smooth patches with some noise on them, always the same."""
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(batch, 3, 16, 16, generator=generator), (size, size), mode="bicubic")
    noise = torch.randn(smooth.shape, generator=generator)
    return (255 * smooth + 4 * noise).clamp(0, 255).to(torch.uint8)


def measure(report: Report, policy: str, interpolation: str, images: Tensor, clock: Clock) -> list[Row]:
    augment = make_augmentation(policy, MEAN, interpolation=interpolation)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    on_device = images.to(report.device)
    agree(report, f"{policy}, {interpolation}", augment, on_device, pictures)
    transform = timm_transform(policy, interpolation, images.shape[-1])

    drawn_from = augment.policy_for(min(images.shape[2:]))

    def lay_out() -> None:
        plan_batch(draw_programs(drawn_from, len(images)), drawn_from.fill, *images.shape[2:])

    steps: dict[str, Callable[[], object]] = {
        "timm, PIL": lambda: [transform(picture) for picture in pictures],
        "vmoe": lambda: augment(on_device),
        "vmoe, host alone": lay_out,
    }
    timings = race([Contestant(who, step) for who, step in steps.items()], report.device, clock.share())
    each = {who: Timing(tuple(s / len(images) for s in timing.seconds)) for who, timing in timings.items()}
    print(f"{policy}, {interpolation}: done", flush=True)
    return [
        {
            "policy": policy,
            "interpolation": interpolation,
            "who": who,
            "ms an image": timing,
            "over timm": None if who == "timm, PIL" else timing.over(each["timm, PIL"]),
            "syncs": count_synchronisations(steps[who], report.device) if who == "vmoe" else None,
        }
        for who, timing in each.items()
    ]


def timm_transform(policy: str, interpolation: str, size: int) -> Transform:
    """As timm's `transforms_imagenet_train` makes it."""
    settings = {"translate_const": int(size * 0.45), "img_mean": FILL}
    if INTERPOLATIONS[interpolation] is not None:
        settings["interpolation"] = INTERPOLATIONS[interpolation]
    name, _, jitter = policy.partition("-jitter")
    if name == "3a":
        transforms = [auto_augment.auto_augment_transform(name, settings)]
    else:
        transforms = [unfailing(auto_augment.rand_augment_transform(policy, settings))]
    return Compose([*transforms, *([ColorJitter(*[float(jitter)] * 3)] if jitter else [])])


def unfailing(transform: Transform) -> Transform:
    """Gives the image back where it fails: from Pillow 13 on, one in hundreds, as posterization is to keep no bits."""

    def apply(image: Image.Image) -> Image.Image:
        try:
            return transform(image)
        except ValueError:
            return image

    return apply


def agree(report: Report, work: str, augment: Augmentation, images: Tensor, pictures: Sequence[Image.Image]) -> None:
    policy = augment.policy_for(min(images.shape[2:]))
    programs = draw_programs(policy, len(images), torch.Generator().manual_seed(0))
    found = apply_plan(images, plan_batch(programs, policy.fill, *images.shape[2:], fuse=False))
    pairs = zip(pictures, programs, strict=True)
    expected = torch.stack([as_tensor(by_pil(picture, program)) for picture, program in pairs])
    report.agreements.append(
        check("vmoe", {"images": found.cpu()}, {"images": expected}, TOLERANCE, work=work, reference="PIL")
    )


def by_pil(image: Image.Image, program: Program) -> Image.Image:
    """timm's function of each step."""
    for kind, argument, cubic in program:
        if kind == "posterize" and argument < 1:
            image = Image.new("RGB", image.size)
            continue
        given: tuple[float, ...] = (argument,)
        if kind in ("auto_contrast", "equalize", "invert"):
            given = ()
        elif kind in ("posterize", "solarize", "solarize_add"):
            given = (int(argument),)
        resample = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
        image = getattr(auto_augment, kind)(image, *given, resample=resample, fillcolor=FILL)
    return image


def as_tensor(image: Image.Image) -> Tensor:
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1)


if __name__ == "__main__":
    main(sys.argv[1:])
