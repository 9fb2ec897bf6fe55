"""`classes.csv` and the pairs of two evaluations: what is written is read, and figures are those of their formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from vmoe.report.classes import ClassAccuracy, read_classes, save_classes
from vmoe.report.paired import Paired, against_table

CLASSES = [ClassAccuracy("n01440764", 'tench, "Tinca"', 50, 40), ClassAccuracy("a\nb", "b", 1, 0)]


def test_what_is_written_is_read(tmp_path):
    save_classes(CLASSES, tmp_path / "classes.csv")
    assert read_classes(tmp_path / "classes.csv") == tuple(CLASSES)
    assert (tmp_path / "classes.csv").read_text().splitlines()[:2] == [
        "class,name,images,correct,accuracy",
        'n01440764,"tench, ""Tinca""",50,40,80.0',
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "its columns are "),
        ("class,images\na,3\n", "its columns are class, images; allowed: class, name"),
        ("class,name,images,correct,accuracy\na,a,3\n", "line 2 is a,a,3"),
        ("class,name,images,correct,accuracy\na,a,3,x,1\n", "line 2 is a,a,3,x,1"),
        ("class,name,images,correct,accuracy\na,a,3,4,1\n", "line 2 has 4 of 3 images"),
        ("class,name,images,correct,accuracy\na,a,0,0,0\n", "line 2 has 0 of 0 images"),
    ],
)
def test_other_files_are_refused(tmp_path, content, says):
    (tmp_path / "classes.csv").write_text(content)
    with pytest.raises(ValueError, match=says):
        read_classes(tmp_path / "classes.csv")


# --- pairs -----------------------------------------------------------------------------------------------


def test_pairs_are_counted_image_by_image():
    """Right in both, only first, only second, neither but alike, neither and not alike."""
    target, first, second = np.array([[1, 1, 1], [2, 2, 0], [3, 0, 3], [4, 0, 0], [5, 0, 1]]).T
    paired = Paired.of(first, second, target)
    assert paired == Paired(both=1, first_only=1, second_only=1, neither=2, same=2)
    assert (paired.images, paired.agreement, paired.difference) == (5, 40, 0)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (1, 5), (5, 1), (4, 4), (3, 6)])
def test_the_exact_test_is_that_of_coins(lost, gained):
    """Every way that the changed images can fall, counted one by one."""
    changed = lost + gained
    ways = [sum(coins) for coins in itertools.product((0, 1), repeat=changed)]
    as_uneven = sum(abs(2 * heads - changed) >= abs(gained - lost) for heads in ways)
    assert Paired(10, lost, gained, 10, 0).p_value == pytest.approx(min(1, as_uneven / len(ways)))


def test_the_exact_test_of_many_images():
    """200 changed images, 80 one way; and so many that the p-value is beyond what a number holds."""
    expected = 2 * sum(math.comb(200, heads) for heads in range(81)) / 2**200
    assert Paired(40_000, 80, 120, 9_800, 0).p_value == pytest.approx(expected, rel=1e-12)
    assert Paired(0, 20_000, 30_000, 0, 0).p_value == 0


def test_the_interval_by_hand():
    """b = 9, c = 25 of 100: (25 − 9) / 102 ± 1.96 · √(25.5 + 9.5 − 16² / 102) / 102."""
    centre, width = 16 / 102, 1.959964 * math.sqrt(35 - 256 / 102) / 102
    low, high = Paired(50, 9, 25, 16, 0).interval
    assert (low, high) == (pytest.approx(100 * (centre - width)), pytest.approx(100 * (centre + width)))
    assert low < Paired(50, 9, 25, 16, 0).difference < high
    turned = Paired(50, 25, 9, 16, 0).interval
    assert turned == (pytest.approx(-high), pytest.approx(-low))


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says():
    """2,000 evaluations of 400 images with a true difference of 2 points: 95 % within 1.5, three deviations of it."""
    draws = np.random.default_rng(0).multinomial(400, [0.7, 0.04, 0.06, 0.2], size=2000)
    held = [low <= 2 <= high for low, high in (Paired(*map(int, draw), 0).interval for draw in draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_the_table_has_both_and_says_what_changed():
    results = [{"top1": 70.0, "top5": 90.0, "loss": 1.25, "calibration_error": 0.03125}]
    results.append({**results[0], "top1": 71.0})
    table = against_table(["a.beton", "a"], results, Paired(690, 10, 20, 280, 960))
    assert "| a.beton | 70.00 | 90.00 | 1.2500 | 0.0312 |" in table.markdown()
    assert "10 change from right to wrong, 20 from wrong to right; 96.00 % are taken for the same class" in table.note
    assert "+1.00 points of top-1" in table.note
    assert table.csv().splitlines()[2] == "a,71.0,90.0,1.25,0.03125"
