"""Speed over training: what the page makes of the log's lines."""

from __future__ import annotations

import json

import pytest
from run_folders import image_run, text_run

pytest.importorskip("matplotlib")

from vmoe.report.run_files import read_folder
from vmoe.report.run_page.blocks import Absent, Plot
from vmoe.report.run_page.speed import speed


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its processes wait for 10 to 30 % of the time, and that which waits most, for 20 points more."""
    return image_run(tmp_path_factory.mktemp("runs") / "a")


def changed(folder, change):
    """Another folder, whose training lines are changed."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train":
            change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_folder(folder)


def labels(plot: Plot) -> list[str]:
    legend = plot.draw().get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_speed_waiting_and_memory(run):
    rate, waiting = speed(read_folder(run))
    assert rate.draw().get_ylabel() == "images/s"
    assert "A process took 2.50 GiB at most." in rate.caption
    (mean, most) = waiting.draw().get_lines()[:2]
    assert list(mean.get_ydata()) == pytest.approx([0.3 - 0.2 * n / 12 for n in range(1, 13)])
    assert list(most.get_ydata()) == pytest.approx([0.5 - 0.2 * n / 12 for n in range(1, 13)])
    assert labels(waiting) == ["mean of the processes", "the one that waits most"]


def test_processes_that_wait_alike_are_one_line(tmp_path):
    image_run(tmp_path / "a")
    files = changed(tmp_path / "a", lambda line: line.update(data_wait_max=line["data_wait"], gpu_peak_gib=7.25))
    rate, waiting = speed(files)
    assert labels(waiting) == []
    assert "Tensors on a GPU took 7.25 GiB at most." in rate.caption


def test_a_log_from_before_there_was_waiting_in_it(tmp_path):
    def forget(line):
        for key in ("data_wait", "data_wait_max", "resident_gib"):
            del line[key]

    text_run(tmp_path / "a")
    (rate,) = speed(changed(tmp_path / "a", forget))
    assert rate.draw().get_ylabel() == "tokens/s"
    assert "GiB" not in rate.caption


def test_without_a_log_that_is_said(tmp_path):
    image_run(tmp_path / "a")
    (tmp_path / "a/metrics.jsonl").unlink()
    (absent,) = speed(read_folder(tmp_path / "a"))
    assert isinstance(absent, Absent)
