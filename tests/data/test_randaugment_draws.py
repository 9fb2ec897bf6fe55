"""What a policy string means, and that what is drawn has timm's distribution, from timm's definition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist

import pytest
import torch
from timm.data.auto_augment import rand_augment_transform

from vmoe.data.augmentation import make_augmentation
from vmoe.data.augmentation.draws import draw_programs
from vmoe.data.augmentation.geometry import MATRICES
from vmoe.data.augmentation.policy import Policy, parse_policy
from vmoe.data.augmentation.program import Program

MEAN = (0.485, 0.456, 0.406)
SAMPLES = 4000


def draw(policy: str, samples: int = SAMPLES, interpolation: str = "random") -> list[Program]:
    parsed = parse_policy(policy, 224, MEAN, interpolation)
    return draw_programs(parsed, samples, torch.Generator().manual_seed(0))


def assert_fits(counts: Sequence[int], shares: Sequence[float]) -> None:
    """Pearson's chi-square, which has the mean n - 1 and the variance 2 (n - 1), within five standard deviations."""
    assert sum(shares) == pytest.approx(1)
    total = sum(counts)
    assert min(shares) * total >= 5
    freedom = len(counts) - 1
    squares = sum((count - total * share) ** 2 / (total * share) for count, share in zip(counts, shares, strict=True))
    assert abs(squares - freedom) < 5 * math.sqrt(2 * freedom)


# --- meaning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        "rand",
        "rand-m9-mstd0.5-inc1",
        "rand-n3-m7-p0.3",
        "rand-m4-mstd101",
        "rand-inc1-mmax20-m15-n1-p1",
        "rand-p0.",
        "rand-tweights-n4",
        "rand-t3a-n1-inc1",
        "rand-t3aw-mstd1.5",
    ],
)
def test_parts_mean_what_they_mean_to_timm(policy):
    ours, timms = parse_policy(policy, 224, MEAN), rand_augment_transform(policy)
    assert [operation.name for operation in ours.operations] == [op.name for op in timms.ops]
    assert ours.layers == timms.num_layers
    assert ours.weights == (None if timms.choice_weights is None else tuple(timms.choice_weights))
    for op, operation in zip(timms.ops, ours.operations, strict=True):
        assert (op.magnitude, op.prob, op.magnitude_std) == (operation.magnitude, ours.probability, ours.spread)
        assert ours.ceiling == (op.magnitude_max or 10)


def test_the_fill_is_timms():
    assert parse_policy("rand", 224, MEAN).fill == (124, 116, 104)  # 123.675, 116.28, 103.53
    assert parse_policy("rand", 224, (0.5, 0.0, 1.0)).fill == (128, 0, 255)  # 127.5 to even


def test_arguments_of_translations_are_shares_of_the_image_as_timms():
    arguments = {o.kind: o.argument(10, True) for o in parse_policy("rand", 100, MEAN).operations}
    assert arguments["translate_x_rel"] == arguments["translate_y_rel"] == -0.45


@pytest.mark.parametrize(
    ("policy", "part"),
    [
        ("rand-m9-x3", "'x3'"),
        ("rand-m9.5", "'m9.5'"),
        ("rand-mstdinf", "'mstdinf'"),
        ("rand--5", "''"),
        ("rand-w0", "'w0'"),
        ("rand-tfoo", "'tfoo'"),
        ("rand-inc2", "'inc2'"),
        ("rand-n0", "'n0'"),
        ("rand-p1.5", "'p1.5'"),
        ("rand-mmax0", "'mmax0'"),
        ("rand-m9-m10", "'m10' is the second 'm'"),
        ("rand-tweights-n16", "'n16' draws more operations than 'tweights' has"),
        ("augmix-m3", "begins with 'augmix'"),
        ("v0", "begins with 'v0'"),
        ("", "begins with ''"),
        ("3a-mstd0.5", "'mstd0.5'"),
        ("3a-jitter", "'jitter'"),
        ("3a-jitter-0.3", "'jitter'"),
    ],
)
def test_what_is_not_supported_is_named(policy, part):
    with pytest.raises(ValueError, match=f"(?s)policy '{policy}'.*{part}.*allowed: "):
        make_augmentation(policy, MEAN)


def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match=r"mean is .*allowed: three numbers"):
        make_augmentation("rand", (124, 116, 104))
    with pytest.raises(ValueError, match="interpolation is 'nearest'; allowed: random, bilinear, bicubic"):
        make_augmentation("rand", MEAN, interpolation="nearest")


# --- distributions ---------------------------------------------------------------------------------------


def test_pairs_of_operations_are_uniform():
    """Each of the two by itself, so that both may be the same."""
    kinds = [operation.kind for operation in parse_policy("rand-inc1", 224, MEAN).operations]
    counts = Counter(tuple(step.kind for step in program) for program in draw("rand-m9-inc1-p1"))
    assert_fits([counts[one, other] for one in kinds for other in kinds], [1 / 15**2] * 15**2)


def test_operations_are_applied_by_their_probability():
    """Of two: a share of (1 - p)² none, 2 p (1 - p) one, p² both."""
    for policy, p in (("rand-m9-mstd0.5-inc1", 0.5), ("rand-p0.3", 0.3)):
        counts = Counter(map(len, draw(policy)))
        assert_fits([counts[0], counts[1], counts[2]], [(1 - p) ** 2, 2 * p * (1 - p), p**2])


def test_weighted_operations_are_drawn_without_replacement():
    """The first by its weight, the second by its weight among those that are left."""
    policy = parse_policy("rand-t3aw-p1", 224, MEAN)
    kinds = [operation.kind for operation in policy.operations]
    weights = policy.weights
    assert weights is not None
    pairs = Counter(tuple(step.kind for step in program) for program in draw("rand-t3aw-p1"))
    indices = range(len(kinds))
    first = [sum(pairs[kinds[i], kinds[j]] for j in indices) for i in indices]
    second = [sum(pairs[kinds[i], kinds[j]] for i in indices) for j in indices]
    assert not any(pairs[kind, kind] for kind in kinds)
    assert_fits(first, weights)
    follows = [sum(weights[i] * weights[j] / (1 - weights[i]) for i in indices if i != j) for j in indices]
    assert_fits(second, follows)


def degrees(policy: str) -> list[float]:
    """Of every rotation: 3 degrees a level."""
    return [step.argument for program in draw(policy) for step in program if step.kind == "rotate"]


def test_magnitudes_are_normal_and_cut_off():
    """N(9, 0.5): by its deciles below 10, and what lies above, Φ(-2) = 2.3 %, all at 10."""
    levels = [abs(angle) / 3 for angle in degrees("rand-m9-mstd0.5-inc1-p1")]
    normal = NormalDist(9, 0.5)
    bounds = [normal.inv_cdf(i / 10) for i in range(1, 10)] + [10 - 1e-9]
    counts = Counter(sum(level > bound for bound in bounds) for level in levels)
    above = 1 - normal.cdf(10)
    assert_fits([counts[i] for i in range(11)], [0.1] * 9 + [0.1 - above, above])


def test_magnitudes_are_uniform_with_a_deviation_above_100():
    levels = [abs(angle) / 3 for angle in degrees("rand-m8-mstd101-p1")]
    assert_fits([Counter(int(level) for level in levels)[i] for i in range(8)], [1 / 8] * 8)


def test_magnitudes_without_noise_and_beyond_ten():
    assert {abs(angle) for angle in degrees("rand-m5")} == {15}
    assert {abs(angle) for angle in degrees("rand-m18")} == {30}  # at 10, where timm cuts off
    assert {abs(angle) for angle in degrees("rand-m18-mmax20")} == {54}


def test_half_of_the_signs_are_negative():
    geometric = [step.argument for program in draw("rand-p1") for step in program if step.kind in MATRICES]
    assert_fits([sum(argument < 0 for argument in geometric), sum(argument > 0 for argument in geometric)], [0.5, 0.5])
    factors = [step.argument for program in draw("rand-m9-inc1") for step in program if step.kind == "color"]
    counts = Counter(round(factor, 9) for factor in factors)
    assert_fits([counts[0.19], counts[1.81]], [0.5, 0.5])  # 1 ∓ 0.81


def test_interpolations():
    def cubic(interpolation: str) -> Counter[bool]:
        programs = draw("rand", 2000, interpolation)
        return Counter(step.cubic for program in programs for step in program if step.kind in MATRICES)

    counts = cubic("random")
    assert_fits([counts[False], counts[True]], [0.5, 0.5])
    assert set(cubic("bilinear")) == {False}
    assert set(cubic("bicubic")) == {True}


def test_layers_and_samples_are_independent():
    """Whether one operation of an image is applied says nothing of the other, nor of the next image's."""
    counts = Counter(map(len, draw("rand-n1", 4 * SAMPLES)))
    assert_fits([counts[0], counts[1]], [0.5, 0.5])
    applied = [len(program) for program in draw("rand-n1", 2 * SAMPLES)]
    neighbours = Counter(zip(applied[::2], applied[1::2], strict=True))
    assert_fits([neighbours[i, j] for i in (0, 1) for j in (0, 1)], [0.25] * 4)


def test_policies_are_values():
    assert isinstance(make_augmentation("3a", MEAN).policy_for(224), Policy)
