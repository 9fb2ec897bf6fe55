"""The config lines in which the rows of a comparison differ."""

from comparable import run_of
from synthetic import result, write

from vmoe.report import read_run
from vmoe.report.differences import differences
from vmoe.report.seeds import rows_of


def lines(*runs):
    return {row[0]: row[1:] for table in differences(rows_of(runs)).tables for row in table.rows()}


def test_a_line_for_each_key_that_differs(tmp_path):
    runs = [
        run_of(tmp_path / "a", gate="topk"),
        run_of(tmp_path / "b", gate="topk", balance="0.1", max_steps="9"),
    ]
    assert lines(*runs) == {"moe.gate.balance": ("0.01", "0.1"), "schedule.max_steps": ("null", "9")}


def test_seeds_and_what_changes_nothing_are_no_differences(tmp_path):
    runs = [run_of(tmp_path / "a", 0), run_of(tmp_path / "b", 1, workers="4", log_every=7)]
    assert lines(*runs) == {}
    assert lines(*runs, run_of(tmp_path / "c", 5, gate="self")) == {"moe.gate.kind": ("topk", "self")}


def test_keys_that_a_config_has_not_are_told_from_values(tmp_path):
    first, second = run_of(tmp_path / "a"), run_of(tmp_path / "b")
    path = second.folder / "config.yaml"
    path.write_text(path.read_text().replace("    balance: 0.01\n", "    bias_rate: null\n"))
    found = differences(rows_of([first, second]))
    assert found.own.rows() == [("moe.gate.balance", "0.01", "–"), ("moe.gate.bias_rate", "–", "null")]
    assert found.shared.rows() == []
    assert found.lines == 2
    assert "no such key" in found.own.note


def test_a_section_stays_together_whoever_has_its_keys(tmp_path):
    first, second = run_of(tmp_path / "a"), run_of(tmp_path / "b")
    path = first.folder / "config.yaml"
    path.write_text(path.read_text().replace("  max_steps", "  extra: 1\n  max_steps"))
    path = second.folder / "config.yaml"
    path.write_text(path.read_text().replace("    balance", "    jitter: 0.1\n    balance"))
    assert list(lines(first, second)) == ["moe.gate.jitter", "schedule.extra"]  # as the sections are, not as they came


def test_a_run_without_a_config_is_unknown_and_makes_no_difference(tmp_path):
    bare = read_run(write(tmp_path / "bare", result()))
    assert lines(run_of(tmp_path / "a"), bare) == {}
    runs = [run_of(tmp_path / "a"), run_of(tmp_path / "b", gate="self"), bare]
    assert lines(*runs) == {"moe.gate.kind": ("topk", "self", "?")}
    assert "no config that can be read" in differences(rows_of(runs)).shared.note
