"""`vmoe bench-data` on a small run of each task."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from world import vmoe

SHORT = ("--seconds", "0.1", "--batches", "3")


def test_images_from_the_disk_to_the_model(both_worlds):
    before = set(Path().rglob("*"))
    outcome = vmoe("bench-data", "tiny.yaml", "augment.mixup=0.8", *SHORT, "--json")
    assert outcome.status == 0, outcome
    found = json.loads(outcome.out)
    stages = [(stage["place"], stage["stage"]) for stage in found["stages"]]
    assert stages == [
        *(("folder", name) for name in ("read", "decode", "crop and resize", "collate", "whole loader, 1 worker")),
        *(("cpu", name) for name in ("normalise, augment", stages[-1][1])),
    ]
    assert stages[-1][1] in {f"training step, {size} images" for size in (2, 4, 8)}  # as many as the time allows
    for stage in found["stages"]:
        assert 0 < stage["low"] <= stage["median"] <= stage["high"]
    folder = found["loaders"]["folder"]
    rates = {stage["stage"]: stage["median"] for stage in found["stages"]}
    assert folder["ratio"] == pytest.approx(rates["whole loader, 1 worker"] / rates[stages[-1][1]])
    assert "a folder" in found["skipped"]["ffcv"]
    assert set(Path().rglob("*")) == before


def test_text_alone(both_worlds):
    outcome = vmoe("bench-data", "text.yaml", *SHORT, "--no-model")
    assert outcome.status == 0, outcome
    lines = outcome.out.splitlines()
    assert "tokens/s" in lines[0]
    assert lines[2].startswith("tokens  whole loader")
    assert lines[-2:] == ["  the bottleneck is read", "  → memory for the page cache, or a nearer disk"]
    assert "cpu" not in outcome.out


@pytest.mark.slow
def test_text_with_its_model(both_worlds):
    outcome = vmoe("bench-data", "text.yaml", "train.accumulate=2", *SHORT, "--json")
    name = json.loads(outcome.out)["stages"][-1]["stage"]
    assert name in {f"training step, {2 * size} sequences" for size in (2, 4)}


def test_forwards_in_one_of_several_processes(both_worlds):
    outcome = vmoe("bench-data", "tiny.yaml", *SHORT, "--processes", "4", "--forward-only")
    assert "forward, 2 images" in outcome.out  # 8 of 4 processes


def test_ffcv_that_cannot_be_imported_is_skipped(both_worlds, monkeypatch):
    monkeypatch.setitem(sys.modules, "vmoe.data.beton", None)  # which imports it
    outcome = vmoe("bench-data", "tiny.yaml", "data.loader=ffcv", *SHORT, "--no-model", "--json")
    assert outcome.status == 0, outcome
    found = json.loads(outcome.out)
    assert list(found["loaders"]) == ["folder"]
    assert "pip install 'vmoe[ffcv]'" in found["skipped"]["ffcv"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tinny.yaml",), "no such config file"),
        (("tiny.yaml", "data.train=images/trian"), "nearest: 'images/train'"),
        (("tiny.yaml", "data.batch_size=7", "--processes", "2"), "data.batch_size is 7; allowed: a multiple of 2"),
        (("tiny.yaml", "--seconds", "0"), "--seconds is 0; allowed: more than 0"),
        (("tiny.yaml", "--batches", "-1"), "--batches is -1"),
        (("tiny.yaml", "--batches", "1000000000"), "--batches is 1000000000; allowed: 1 to 100000"),
        (("tiny.yaml", "--no-model", "--forward-only"), "not allowed with"),
    ],
)
def test_wrong_inputs(both_worlds, arguments, says):
    outcome = vmoe("bench-data", *arguments)
    assert outcome.status == 2
    assert says in outcome.err
