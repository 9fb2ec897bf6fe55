"""A batch's programs laid out as operations on groups of its images, and their execution on the device.

The order: each image's operations keep theirs. Those of several images that may run at the same time and are alike
become one group. Times alternate between colour operations and warps, so that with two operations an image, all warps
of a batch fall together.

Geometric operations of an image with no colour operation between them are fused: their coordinates are composed in
float64 and the image is interpolated once, as the last of them asks. The fill is that of all of them: what any of them
moved out is filled. One after the other they would cut fractions off after each and blur more, and interpolate
between pixels and fill at its border.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from .colours import COLOURS
from .geometry import MATRICES, stages, warp
from .program import Program, Step


class Key(NamedTuple):
    """What operations of one group have in common. cubic, along_x, along_y: see `warp`; False for colours."""

    kind: str
    cubic: bool = False
    along_x: bool = False
    along_y: bool = False

    def __call__(self, images: Tensor, arguments: Tensor) -> Tensor:
        """images: (N, 3, H, W). arguments: (N, K), theirs."""
        if self.kind == "keep":
            return images
        if self.kind == "warp":
            return warp(images, arguments, cubic=self.cubic, along_x=self.along_x, along_y=self.along_y)
        return COLOURS[self.kind](images, arguments)


class Group(NamedTuple):
    """An operation on some images of the batch. places, arguments: where the plan has theirs."""

    key: Key
    places: slice
    arguments: slice


class Plan(NamedTuple):
    """times: the groups of each, which together have every image once; the batch then goes on in their order.
    places: int64, of groups' images in the batch as it is then; and at the end, once more, in its first order.
    arguments: float32, of groups' images. Both lie on the host.
    """

    times: tuple[tuple[Group, ...], ...]
    places: Tensor
    arguments: Tensor


Members = dict[Key, list[tuple[int, tuple[float, ...]]]]  # an operation's images, with their arguments


def plan_batch(
    programs: Sequence[Program], fill: tuple[int, int, int], height: int, width: int, *, fuse: bool = True
) -> Plan:
    """fuse: False resamples for each geometric operation, as PIL does."""
    times: list[tuple[Group, ...]] = []
    order = list(range(len(programs)))  # the place of each image
    places: list[int] = []
    numbers: list[float] = []
    for members in members_by_time(programs, fill, height, width, fuse):
        groups: list[Group] = []
        moved: list[int] = []
        for key, found in members.items():
            first_place, first_number = len(places), len(numbers)
            longest = max(len(arguments) for _, arguments in found)
            for image, arguments in found:
                moved.append(image)
                places.append(order[image])
                numbers += arguments + arguments[-6:] * ((longest - len(arguments)) // 6)  # the last stage once more
            groups.append(Group(key, slice(first_place, len(places)), slice(first_number, len(numbers))))
        times.append(tuple(groups))
        for place, image in enumerate(moved):
            order[image] = place
    return Plan(
        tuple(times), torch.tensor(places + order, dtype=torch.int64), torch.tensor(numbers, dtype=torch.float32)
    )


def members_by_time(
    programs: Sequence[Program], fill: tuple[int, int, int], height: int, width: int, fuse: bool
) -> Iterator[Members]:
    """What to run at the same time, for every image: colours at even times, warps at odd ones."""
    by_time: defaultdict[int, Members] = defaultdict(lambda: defaultdict(list))
    for image, program in enumerate(programs):
        time = -1
        for key, arguments in operations(program, fill, height, width, fuse):
            time += 1 if (time % 2 == 0) == (key.kind == "warp") else 2
            by_time[time][key].append((image, arguments))
    for _, members in sorted(by_time.items()):
        busy = {image for found in members.values() for image, _ in found}
        for image in range(len(programs)):
            if image not in busy:
                members[Key("keep")].append((image, ()))
        yield members


def operations(
    program: Program, fill: tuple[int, int, int], height: int, width: int, fuse: bool
) -> Iterator[tuple[Key, tuple[float, ...]]]:
    """A program's operations one after the other, with their arguments."""
    runs = groupby(enumerate(program), lambda step: -1 if step[1].kind in MATRICES and fuse else step[0])
    for _, run in runs:
        steps = [step for _, step in run]
        if steps[0].kind in MATRICES:
            yield warp_of(steps, fill, height, width)
        else:
            yield Key(steps[0].kind), (steps[0].argument,)


def warp_of(
    steps: Sequence[Step], fill: tuple[int, int, int], height: int, width: int
) -> tuple[Key, tuple[float, ...]]:
    """One warp for geometric operations in a row."""
    found = stages([MATRICES[step.kind](step.argument, width, height) for step in steps])
    along_x, along_y = found[-1][:3] != (1, 0, 0), found[-1][3:] != (0, 1, 0)
    key = Key("warp", steps[-1].cubic, along_x, along_y)
    return key, (*map(float, fill), *(entry for stage in found for entry in stage))


def apply_plan(images: Tensor, plan: Plan) -> Tensor:
    """images: uint8 (B, 3, H, W), which stay as they are. Reads nothing back from their device."""
    if not plan.times:
        return images.clone()
    places, arguments = (send(numbers, images.device) for numbers in (plan.places, plan.arguments))
    order = places[len(places) - len(images) :]
    for groups in plan.times:
        images = torch.cat([run(group, images, places, arguments) for group in groups])
    return images.index_select(0, order)


def run(group: Group, images: Tensor, places: Tensor, arguments: Tensor) -> Tensor:
    """The group's images, changed."""
    own = images.index_select(0, places[group.places])
    return group.key(own, arguments[group.arguments].view(len(own), -1))


def send(numbers: Tensor, device: torch.device) -> Tensor:
    """To a device, without waiting for it."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)
