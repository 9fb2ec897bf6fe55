"""What measured rates say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmoe.data.stages import MODEL, Rate, judge
from vmoe.data.stages.advice import MeasuredImages, MeasuredTokens
from vmoe.data.stages.parts import COLLATE, CROP, DECODE, READ, Sample


def per_second(rate: float) -> Rate:
    return Rate(rate, rate, rate, 5)


# Decoding is what takes longest; 4 workers on 4 cores, each as fast as one alone.
FFCV = MeasuredImages(
    loader="ffcv",
    workers=4,
    processes=1,
    cores=4,
    image_size=224,
    sample=Sample(bytes=110_000, side=375, compressed=1.0, resident=1.0),
    parts={READ: per_second(10_000), DECODE: per_second(300), CROP: per_second(2000)},
    one=per_second(250),
    all=per_second(1000),
)


def test_a_model_that_the_loader_outruns_is_the_bottleneck() -> None:
    judged = judge(FFCV, per_second(500))
    assert judged.bottleneck == MODEL
    assert judged.ratio == 2
    assert judged.advice == ()


def test_a_loader_that_just_keeps_up_does_not() -> None:
    judged = judge(FFCV, per_second(1000))
    assert judged.bottleneck == DECODE
    assert judged.ratio == 1


def test_without_a_model_the_loader_is_judged_alone() -> None:
    assert judge(FFCV, None).ratio is None
    assert judge(FFCV, None).bottleneck == DECODE
    assert judge(MeasuredTokens(per_second(10)), None).bottleneck == READ
    assert judge(MeasuredTokens(per_second(10)), per_second(1)).bottleneck == MODEL


def advice(**changes: object) -> str:
    return "\n".join(judge(replace(FFCV, **changes), per_second(1e6)).advice)


@pytest.mark.parametrize(
    ("changes", "says", "not_said"),
    [
        ({}, "--mode proportion, or raw", "more workers"),
        ({"cores": 32}, "a process has 4, and 32 cores", "page cache"),
        ({"cores": 32, "processes": 8}, "--quality", "more workers"),
        ({"cores": 2, "processes": 1, "all": per_second(260)}, "4 workers give 1.0 times", "more workers"),
        ({"cores": 2, "all": per_second(260)}, "4 share 2 cores: fewer workers, or processes", "more workers"),
        ({"all": per_second(260)}, "4 workers give 1.0 times", "share"),
        ({"sample": replace(FFCV.sample, side=600)}, "--max-resolution 448", "--mode jpg"),
        ({"sample": replace(FFCV.sample, compressed=0.5)}, "(`vmoe write --mode raw`)", "proportion"),
        ({"parts": {**FFCV.parts, READ: per_second(1)}}, "lower JPEG quality", "memory for"),
        (
            {"parts": {**FFCV.parts, READ: per_second(1)}, "sample": replace(FFCV.sample, resident=0.25)},
            "memory for the page cache, which held 25%",
            "--mode jpg",
        ),
        (
            {"parts": {**FFCV.parts, READ: per_second(1)}, "sample": replace(FFCV.sample, compressed=0.0)},
            "--mode jpg",
            "--quality",
        ),
        ({"loader": "folder"}, "data.loader=ffcv", "--quality"),
    ],
)
def test_advice_fits_what_is_slow(changes: dict[str, object], says: str, not_said: str) -> None:
    assert says in advice(**changes)
    assert not_said not in advice(**changes)


def test_one_row_for_each_number_of_workers() -> None:
    assert list(FFCV.rates)[-2:] == ["whole loader, 1 worker", "whole loader, 4 workers"]
    alone = replace(FFCV, workers=1, parts={**FFCV.parts, COLLATE: per_second(9)})
    assert list(alone.rates) == [READ, DECODE, CROP, COLLATE, "whole loader, 1 worker"]


def test_what_is_known_of_the_images_is_said() -> None:
    assert "110,000 bytes and 375 pixels" in FFCV.about()
    assert "page cache before: 100%" in FFCV.about()
    assert "unknown" in replace(FFCV, sample=replace(FFCV.sample, resident=None)).about()
    assert "so small" not in FFCV.about()
    assert "so small" in replace(FFCV, one=per_second(301)).about()  # faster than its slowest part
