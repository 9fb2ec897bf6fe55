"""`vmoe report`: a page of each run, and where each is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from world import vmoe

pytest.importorskip("matplotlib")


@pytest.fixture
def runs(tmp_path):
    """Two runs that have just begun, without experts."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        (folder / "config.yaml").write_text("task: images\nmoe: {gate: {kind: dense}}\n")
        line = {"kind": "train", "step": 10, "epoch": 0.5, "loss": 2.0, "lr": 0.001}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return folders


def test_several_runs_get_a_page_each(runs):
    outcome = vmoe("report", *map(str, runs))
    pages = [run / "report" / "index.html" for run in runs]
    assert (outcome.status, outcome.out) == (0, "".join(f"{page}\n" for page in pages))
    assert all(page.read_text(encoding="utf-8").startswith("<!doctype html>") for page in pages)
    for run in runs:
        files = {path.name for path in (run / "report").iterdir()}
        assert files == {"index.html", "report.md", "loss.png", "learning_rate.png"}


def test_a_page_can_go_elsewhere(runs, tmp_path):
    outcome = vmoe("report", str(runs[0]), "--output", str(tmp_path / "there" / "deeper"))
    assert outcome.out == f"{tmp_path / 'there' / 'deeper' / 'index.html'}\n"
    assert not (runs[0] / "report").exists()
    refused = vmoe("report", *map(str, runs), "--output", str(tmp_path / "there"))
    assert refused.status == 2
    assert "for 2 runs; allowed: one" in refused.err


def test_what_is_no_run_is_refused_before_any_page_is_written(runs, tmp_path):
    nowhere = tmp_path / "nowhere"
    outcome = vmoe("report", str(runs[0]), str(nowhere))
    assert outcome.status == 2
    assert outcome.err == f"vmoe report: {nowhere}: there is no such folder; name the `output` folder of a run\n"
    assert not (runs[0] / "report").exists()


def test_without_matplotlib_it_says_what_to_install(runs):
    """In a process of its own, which has loaded none of it."""
    code = "import sys; sys.modules['matplotlib'] = None; from vmoe.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "report", str(runs[0])]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert outcome.returncode == 2
    assert outcome.stderr == "vmoe report: plots need matplotlib: pip install 'vmoe[report]'\n"
