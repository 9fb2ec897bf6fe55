"""What a policy string stands for, read with timm's own parser and tables: the one place that imports timm's.

    rand-m9-mstd0.5-inc1    RandAugment. Parts, in any order, each at most once:
        m9          magnitude, an integer (10)
        n2          operations an image draws (2)
        p0.5        probability that a drawn one is applied (0.5)
        mstd0.5     standard deviation of the magnitude (0); above 100, uniform from 0 to the magnitude
        mmax10      upper bound of the magnitude, an integer of at least 1 (10)
        inc1        operations that grow with the magnitude (0)
        t<set>      operations to draw from: weights (weighted, without replacement), 3a, 3aw
    3a                      3-Augment: one of grayscale, solarize, Gaussian blur
    3a-jitter0.3            and then ColorJitter of that strength: brightness, contrast and colour, not hue

timm's parser passes over parts that it does not understand, and takes the first or the last of two alike; here both
are errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from .colours import COLOURS
from .geometry import MATRICES

Argument = Callable[[float], float]

# Kinds that draws make another kind of.
DRAWN = ("gaussian_blur_rand",)

RAND_PARTS = {
    "m": r"\d+",
    "n": r"[1-9]\d*",
    "p": r"0(\.\d*)?|1(\.0*)?",
    "mstd": r"\d+(\.\d*)?",
    "mmax": r"[1-9]\d*",
    "inc": r"[01]",
    "t": r"weights|3a|3aw",
}
RAND_ALLOWED = "m<int>, n<int from 1>, p<0 to 1>, mstd<float>, mmax<int from 1>, inc<0 or 1>, t<weights, 3a or 3aw>"
THREE_PARTS = {"jitter": r"\d+(\.\d*)?"}
THREE_ALLOWED = "jitter<float>"
CUBIC_SHARES = {"random": 0.5, "bilinear": 0.0, "bicubic": 1.0}


@dataclass(frozen=True)
class Operation:
    """One of timm's operations.

    name: timm's. kind: that of its function, which operations of several names share. magnitude: its level, before
    noise. arguments: what the function gets at a level, as it is and negated; none for a function without arguments.
    """

    name: str
    kind: str
    magnitude: float
    arguments: tuple[Argument, Argument] | None

    def argument(self, level: float, negated: bool) -> float:
        return self.arguments[negated](level) if self.arguments else 0.0


@dataclass(frozen=True)
class Policy:
    """What is drawn for an image.

    layers: how many operations, with replacement if weights is None, and otherwise without, by these shares.
    probability: that one of them is applied. spread: the magnitude's standard deviation; infinite for a uniform
    magnitude. ceiling: its upper bound. cubic: the share of bicubic interpolation. fill: a colour in [0, 255].
    jitter: the strength of the colour jitter that follows, 0 for none.
    """

    operations: tuple[Operation, ...]
    weights: tuple[float, ...] | None
    layers: int
    probability: float
    spread: float
    ceiling: float
    cubic: float
    fill: tuple[int, int, int]
    jitter: float = 0.0


def parse_policy(policy: str, image_size: int, mean: Sequence[float], interpolation: str = "random") -> Policy:
    """See `make_augmentation`."""
    if len(mean) != 3 or not all(0 <= value <= 1 for value in mean):
        raise ValueError(f"mean is {tuple(mean)}; allowed: three numbers in [0, 1]")
    if interpolation not in CUBIC_SHARES:
        raise ValueError(f"interpolation is '{interpolation}'; allowed: {', '.join(CUBIC_SHARES)}")
    parsers = {"rand": rand_augment, "3a": three_augment}
    name, *parts = policy.split("-")
    if name not in parsers:
        raise ValueError(f"augmentation policy '{policy}' begins with '{name}'; allowed: {', '.join(parsers)}")
    red, green, blue = (min(255, round(255 * value)) for value in mean)
    surroundings = {"translate_const": int(image_size * 0.45), "img_mean": (red, green, blue)}
    return parsers[name](policy, parts, surroundings, CUBIC_SHARES[interpolation])


def rand_augment(policy: str, parts: list[str], surroundings: dict[str, Any], cubic: float) -> Policy:
    """timm's `rand_augment_transform`."""
    from timm.data.auto_augment import rand_augment_transform

    given = read_parts(policy, parts, RAND_PARTS, RAND_ALLOWED)
    transform = rand_augment_transform(policy, surroundings)
    weights = transform.choice_weights
    if weights is not None and transform.num_layers > len(weights):
        raise ValueError(
            f"augmentation policy '{policy}': part 'n{given['n']}' draws more operations than 't{given['t']}' has;"
            f" allowed: up to {len(weights)}"
        )
    return policy_of(
        transform.ops,
        weights=None if weights is None else tuple(weights.tolist()),
        layers=transform.num_layers,
        cubic=cubic,
        fill=surroundings["img_mean"],
    )


def three_augment(policy: str, parts: list[str], surroundings: dict[str, Any], cubic: float) -> Policy:
    """timm's `3a`, whose three sub-policies are of one operation each; jitter is torchvision's, beside it."""
    from timm.data.auto_augment import auto_augment_transform

    given = read_parts(policy, parts, THREE_PARTS, THREE_ALLOWED)
    ops = [op for (op,) in auto_augment_transform("3a", surroundings).policy]
    jitter = float(given.get("jitter", 0))
    return policy_of(ops, weights=None, layers=1, cubic=cubic, fill=surroundings["img_mean"], jitter=jitter)


def read_parts(policy: str, parts: list[str], patterns: dict[str, str], allowed: str) -> dict[str, str]:
    """Values by key, in the spelling of the string."""
    found: dict[str, str] = {}
    for part in parts:
        matches = {key: part.removeprefix(key) for key in patterns if part.startswith(key)}
        key, value = next(((k, v) for k, v in matches.items() if re.fullmatch(patterns[k], v)), ("", ""))
        if not key:
            raise ValueError(f"augmentation policy '{policy}': part '{part}' is not supported; allowed: {allowed}")
        if key in found:
            raise ValueError(f"augmentation policy '{policy}': part '{part}' is the second '{key}'; allowed: one")
        found[key] = value
    return found


def policy_of(ops: Sequence[Any], **settings: Any) -> Policy:
    """The policy of timm's `AugmentOp`s, which differ in nothing but their operation and magnitude."""
    from timm.data.auto_augment import _LEVEL_DENOM

    first = ops[0]
    return Policy(
        operations=tuple(operation_of(op) for op in ops),
        probability=first.prob,
        spread=first.magnitude_std,
        ceiling=first.magnitude_max or _LEVEL_DENOM,
        **settings,
    )


def operation_of(op: Any) -> Operation:
    kind = op.aug_fn.__name__
    known = (*COLOURS, *MATRICES, *DRAWN)
    if kind not in known:
        raise ValueError(f"timm's augmentation '{op.name}' is '{kind}', which is not supported; allowed: {known}")
    arguments = None
    if op.level_fn is not None:
        arguments = (argument_of(op.level_fn, 1, op.hparams), argument_of(op.level_fn, -1, op.hparams))
    return Operation(op.name, kind, op.magnitude, arguments)


def argument_of(level_function: Callable[..., tuple[float]], sign: int, hparams: dict[str, Any]) -> Argument:
    """timm's function of a level, with the coin that it tosses, `_randomly_negate`, replaced by a sign.

    The coin is Python's global random number generator; nothing here may depend on it or advance it.
    """
    if isinstance(level_function, FunctionType):  # and no partial, of one that tosses none
        names = {**level_function.__globals__, "_randomly_negate": lambda level: sign * level}
        level_function = FunctionType(level_function.__code__, names, argdefs=level_function.__defaults__)

    def argument(level: float) -> float:
        return level_function(level, hparams)[0]

    return argument
