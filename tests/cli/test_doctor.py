"""`vmoe doctor` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from world import vmoe

from vmoe.cli import doctor
from vmoe.cli.doctor.ask_devices import kinds_of_experts, paths_on
from vmoe.cli.doctor.ask_ffcv import TOLERANCE, ask_ffcv
from vmoe.cli.doctor.ask_run import SPLITS, ask_run
from vmoe.cli.doctor.finding import Finding, Verdict, as_lines, in_bytes, ok
from vmoe.cli.doctor.machine import Machine
from vmoe.cli.doctor.planned import existing
from vmoe.cli.doctor.reading import reading_of
from vmoe.cli.doctor.situation import Situation
from vmoe.cli.tasks import assembly_of
from vmoe.config import load_config
from vmoe.train.distributed import Processes


@pytest.fixture
def no_ffcv(monkeypatch):
    """What takes seconds of compilation is tested by itself below."""
    monkeypatch.setitem(doctor.CHECKS, "FFCV", ())


def doctored(*arguments: str):
    outcome = vmoe("doctor", *arguments, "--json")
    findings = json.loads(outcome.out)["findings"]
    return outcome, {(finding["group"], finding["name"]): finding for finding in findings}


def test_a_run_that_can_start(both_worlds, no_ffcv):
    before = set(Path().rglob("*"))
    outcome, found = doctored("tiny.yaml", "--processes", "2")
    assert [one for one in found.values() if one["verdict"] == "problem"] == []
    assert outcome.status == 0
    assert json.loads(outcome.out)["verdict"] in ("ok", "warning")
    assert found["software", "torch"]["found"] == torch.__version__.partition("+")[0]
    assert found["run", "batch"]["found"] == "8 = 2 processes × 1 (accumulate) × 4"
    assert "images/train: 24 images an epoch" in found["run", "data.train"]["found"]
    assert "2 classes" in found["run", "labels"]["found"]
    assert "on cpu in float32" in found["model", "model"]["found"]
    assert set(Path().rglob("*")) == before


def test_a_machine_alone_as_text(both_worlds, no_ffcv):
    outcome = vmoe("doctor")
    assert outcome.out.splitlines()[0] == "software"
    assert outcome.out.splitlines()[-1].startswith("problems: ")
    assert "\nrun\n" not in outcome.out
    assert not outcome.err


def test_a_broken_config_leaves_the_machine(both_worlds, no_ffcv):
    outcome, found = doctored("tiny.yaml", "data.batchsize=8")
    assert outcome.status == 1
    assert "did you mean batch_size?" in found["run", "config"]["found"]
    assert ("machine", "memory") in found
    assert doctored("tinny.yaml")[0].status == 1


def test_data_that_are_missing(both_worlds, no_ffcv):
    outcome, found = doctored("tiny.yaml", "data.val=images/vla")
    assert outcome.status == 1
    assert "nearest: 'images/val'" in found["run", "data"]["found"]
    assert ("model", "model") not in found


def test_an_output_that_holds_a_run(both_worlds, no_ffcv):
    Path("runs/old").mkdir(parents=True)
    Path("runs/old/result.json").touch()
    outcome, found = doctored("tiny.yaml", "output=runs/old")
    assert outcome.status == 1
    assert "already holds a run" in found["run", "output"]["found"]


def test_files_of_text(both_worlds):
    config = load_config("text.yaml")
    data = assembly_of(config).open_data(Processes(0, 1, 0, 1, torch.device("cpu")))
    size = Path("val.tokens").stat().st_size
    assert SPLITS["text"](config, data)[1] == ("data.val", "val.tokens", data.val.units, size, True)
    assert reading_of(config, 8) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a.b=1",), "'a.b=1' changes a key of no config"),
        (("--processes", "0"), "--processes is 0; allowed: more than 0"),
        (("--timeout", "nan"), "--timeout is nan"),
        (("tiny.yaml", "other.yaml", "--jsno"), "unrecognized arguments"),
    ],
)
def test_wrong_usage(both_worlds, arguments, says):
    outcome = vmoe("doctor", *arguments)
    assert outcome.status == 2
    assert says in outcome.err


def test_the_model_that_is_foreseen_is_the_one_that_trains(both_worlds):
    """Parameters by hand: see the layers' sizes; bytes of them by the estimates of `vmoe train --dry-run`."""
    found = ask_run(load_config("tiny.yaml", ["train.ema_decay=0.99"]), 2)
    assert found.no_data is None
    assert found.no_model is None
    model = found.model
    assert model.weights == 20 * model.params  # 4 for each of weight, gradient, two moments and the average
    assert model.checkpoint == 16 * model.params
    assert model.batch == 4
    assert model.steps == 3  # 24 images in batches of 8
    assert sum(path.stat().st_size for path in Path("images/train").rglob("*.png")) == found.splits[0].bytes


def test_ffcv_reads_what_it_wrote():
    found = ask_ffcv(60.0)
    assert found.difference < TOLERANCE
    assert any(library.startswith("libopencv_core") for library in found.libraries)


def test_every_kind_of_experts_has_a_path():
    paths = paths_on(torch.device("cpu"))
    assert sorted(kind for path in paths for kind in path.experts.split(", ")) == sorted(kinds_of_experts())
    chosen = {kind: path.chosen for path in paths for kind in path.experts.split(", ")}
    assert chosen["mlp"].startswith("tiled (")
    assert chosen["of another activation"].startswith("reference (the fused path is out: the derivative")


def test_a_process_without_ffcv_finds_that_out(monkeypatch):
    from vmoe.cli.doctor.isolated import NoAnswerError, isolated

    for name in ("vmoe.data.beton", "vmoe.data.beton_writer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NoAnswerError, match=r"^ModuleNotFoundError: .*vmoe\.data\.beton"):
        isolated(lambda: ask_ffcv(60.0), 60.0)


def test_lines_are_aligned():
    lines = [
        *as_lines(Finding("a", Verdict.OK, "fine")),
        *as_lines(Finding("long", Verdict.PROBLEM, "two\nlines", "do")),
    ]
    assert lines == [
        "  ok       a              fine",
        "  problem  long           two\n                          lines",
        "                          → do",
    ]


def test_a_policy_that_there_is_not(both_worlds, no_ffcv):
    outcome, found = doctored("tiny.yaml", "augment.policy=rnad-m9")
    assert outcome.status == 1
    assert "augment.policy is 'rnad-m9'" in found["run", "task"]["found"]
    assert ("model", "model") not in found


def test_findings_come_when_they_are_known(both_worlds, no_ffcv, monkeypatch):
    """What needs no torch does not wait for it, and a check does not wait for those after it."""
    released = Path("released")
    monkeypatch.setattr(doctor, "_with_torch", partial(_waiting, released))
    at = Situation(Machine(), None, (), 1, 60.0)
    findings = doctor.look(at)
    software = [next(findings) for _ in range(3)]
    assert {group for group, _ in software} == {"software"}
    rest = []
    for group, finding in findings:
        if group != "software":
            rest.append(finding.name)
            released.touch()  # which the second one waits for
    assert rest == ["first", "second"]


def _waiting(released, checks, at):
    yield None
    yield "late", ok("first", "")
    while not released.exists():
        time.sleep(0.01)
    yield "late", ok("second", "")


def test_torch_that_kills_its_process_is_a_finding(both_worlds, no_ffcv, monkeypatch):
    def die(checks, at):
        os.kill(os.getpid(), signal.SIGILL)
        yield None

    monkeypatch.setattr(doctor, "_with_torch", die)
    outcome, found = doctored("tiny.yaml")
    assert outcome.status == 1
    assert found["devices", "imports"]["found"] == "torch cannot be used: its process ended by SIGILL"
    assert "cannot be imported" in found["run", "config"]["found"]
    assert ("machine", "memory") in found


def test_a_process_that_ends_on_the_way_leaves_what_it_found(both_worlds, no_ffcv, monkeypatch):
    def die(checks, at):
        yield None
        yield "devices", ok("imports", "torch")
        os._exit(3)

    monkeypatch.setattr(doctor, "_with_torch", die)
    outcome, found = doctored()
    assert outcome.status == 1
    assert ("devices", "imports") in found
    assert "with exit status 3" in found["end", "doctor"]["found"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (2**30, "1 GiB"),
        (11.5 * 2**30, "12 GiB"),
        (2**50, "1,024.0 TiB"),
    ],
)
def test_bytes_for_people(size, text):
    assert in_bytes(size) == text


def test_the_folder_that_is_there(tmp_path):
    (tmp_path / "file").touch()
    assert existing(tmp_path) == tmp_path
    assert existing(tmp_path / "a/b") == tmp_path
    assert existing(tmp_path / "file/b") == tmp_path
