"""What a run writes beside its checkpoints: whole files, and no line lost."""

import errno
import json
import os

import pytest
from memory import tiny_config, tiny_run

from vmoe.report import read_metrics
from vmoe.train import lines as lines_module
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.lines import Lines
from vmoe.train.loop import fit
from vmoe.train.runfolder import RunFolder


def entry(step, kind="train"):
    return {"kind": kind, "step": step, "epoch": step / 10, "loss": 1.0}


def steps_of(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


class Disk:
    """A disk with so many bytes left for `Lines`, which writes what fits, as disks do."""

    def __init__(self, monkeypatch):
        self.left = None
        original = lines_module.write_some
        monkeypatch.setattr(lines_module, "write_some", lambda file, content: self.write(original, file, content))

    def write(self, original, file, content):
        if self.left is None:
            return original(file, content)
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = original(file, content[: self.left])
        self.left -= count
        return count


@pytest.mark.parametrize("left", [0, 1, 20, 70])
def test_lines_wait_while_the_disk_is_full(left, tmp_path, monkeypatch, capfd):
    disk, folder = Disk(monkeypatch), RunFolder(tmp_path, writes=True)
    folder.log(entry(1))
    disk.left = left
    for step in (2, 3, 4):
        folder.log(entry(step))
    assert folder.metrics.read_text().endswith("}\n")
    assert steps_of(folder.metrics) == ([1, 2] if left > len(json.dumps(entry(2))) else [1])
    told = capfd.readouterr().err
    assert told.count("\n") == told.count("could not be written: [Errno 28] No space left on device") == 1
    disk.left = None
    folder.log(entry(5))
    assert steps_of(folder.metrics) == [1, 2, 3, 4, 5]
    assert "is written again, with the" in capfd.readouterr().err
    folder.log(entry(6))
    assert capfd.readouterr().err == ""


def test_what_waits_is_written_at_the_end(tmp_path, monkeypatch):
    disk, folder = Disk(monkeypatch), RunFolder(tmp_path, writes=True)
    with folder.logging_to([]):
        disk.left = 0
        folder.log(entry(1))
        disk.left = None
    assert steps_of(folder.metrics) == [1]


def test_a_line_after_a_torn_one_is_a_line_of_its_own(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(entry(1)) + "\n" + '{"kind": "train", "st')
    Lines(path).append(json.dumps(entry(2)))
    assert path.read_text().splitlines()[2] == json.dumps(entry(2))
    metrics = read_metrics(path)  # as reports read them
    assert [moment.step for moment in metrics.train] == [1, 2]
    assert len(metrics.problems) == 1


@pytest.mark.parametrize("torn", ['{"kind": "train", "st', "\0" * 40, "[1]", "7", '{"kind": "train"}', '{"a": "ü'])
def test_a_torn_line_does_not_keep_a_run_from_going_on(torn, tmp_path, capfd):
    state, parts = tiny_run(tiny_config("schedule.max_steps=4", "checkpoint.every_steps=4"), tmp_path)
    fit(state, parts)
    with parts.folder.metrics.open("a") as file:
        file.write(torn)
    parts.folder.start("seed: 0\n", parts.processes, step=3, evaluated=0)
    assert steps_of(parts.folder.metrics) == [1, 2, 3]
    assert "left out what is no whole line, 1 altogether" in capfd.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == "seed: 0\n"
    assert not list(tmp_path.glob(".*"))


def test_lines_of_other_kinds_go_by_the_step_of_training(tmp_path):
    folder = RunFolder(tmp_path, writes=True)
    for step, kind in [(1, "train"), (1, "evaluation"), (2, "notice"), (2, "evaluation"), (3, "notice")]:
        folder.log(entry(step, kind))
    folder.rewind(step=2, evaluated=1)
    assert steps_of(folder.metrics) == [1, 1, 2]


def test_a_folder_that_cannot_be_replaced_keeps_its_lines(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, writes=True)
    folder.log(entry(1))
    folder.log(entry(2))

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        folder.rewind(step=1, evaluated=0)
    assert steps_of(folder.metrics) == [1, 2]


def test_a_sink_that_fails_does_not_end_the_run(tmp_path, capfd):
    class Full:
        def log(self, entry):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    folder = RunFolder(tmp_path, writes=True)
    with folder.logging_to([Full()]):
        folder.log(entry(1))
        folder.log(entry(2))
    assert steps_of(folder.metrics) == [1, 2]
    assert capfd.readouterr().err.count("Full could not be written") == 1


# --- the checkpoints that a config asks for --------------------------------------------------------------


def test_checkpoints_come_as_often_as_the_config_says_and_change_nothing(tmp_path):
    whole, parts = tiny_run(tiny_config(), tmp_path / "whole")
    fit(whole, parts)
    assert [path.name for path in parts.folder.checkpoints.paths] == ["last.pt", "previous.pt", "best.pt"]

    keep = ("checkpoint.every_steps=4", "checkpoint.keep_every=5", "checkpoint.keep_best=2")
    state, parts = tiny_run(tiny_config(*keep), tmp_path / "kept")
    stops, step = [], 0
    while step < parts.last_step:
        stops.append(step := parts.next_stop(step))
    assert stops == [4, 5, 6, 8, 10, 12]  # an epoch has 6 steps
    fit(state, parts)
    names = {path.name for path in parts.folder.checkpoints.paths}
    assert names == {
        "last.pt",
        "previous.pt",
        "best.pt",
        *names & {"best-6.pt", "best-12.pt"},
        "step-5.pt",
        "step-10.pt",
    }
    assert len(names) == 6
    for name, tensor in whole.model.state_dict().items():
        assert tensor.equal(state.model.state_dict()[name]), name

    again, parts = tiny_run(tiny_config(*keep), tmp_path / "again")
    again.load(read_checkpoint(tmp_path / "kept/checkpoints/step-5.pt"), parts.layout)
    fit(again, parts)
    for name, tensor in whole.model.state_dict().items():
        assert tensor.equal(again.model.state_dict()[name]), name
