"""A sweep of θ: reading `sweep.json`, its table."""

import csv
import io
import re

import pytest
from synthetic import result, text_result

from vmoe.report import parse_sweep, sweep_table


def content(*thetas: float, trained: float = 1.0, **changes):
    rows = [{"threshold": theta, **result("routing_free", top1=80 - theta), **changes} for theta in thetas]
    return {"format": 1, "checkpoint": "last.pt", "trained_threshold": trained, "rows": rows}


def cells(table, row):
    return {column.header: column.cells[row] for column in table.columns}


def test_a_row_for_each_threshold_and_the_one_of_training_marked():
    table = sweep_table(parse_sweep(content(0.5, 1.0), "x"))
    assert cells(table, 0) == {
        "θ": "0.5",
        "top-1 %": "79.50",
        "top-5 %": "90.25",
        "loss": "1.2500",
        "density": "0.500",
        "GFLOPs/image": "2.50",
        "active params (M)": "5.72",
        "routing entropy": "0.750 (≥ 0.50)",
        "dead experts %": "25.0",
    }
    assert cells(table, 1)["θ"] == "1.0 (trained)"
    assert "trained with θ = 1.0" in table.note


def test_a_sweep_of_a_language_model_shows_what_its_task_measures():
    rows = [{"threshold": 1.0, **text_result("routing_free")}]
    table = sweep_table(parse_sweep({"format": 1, "trained_threshold": 1.0, "rows": rows}, "x"))
    assert [column.header for column in table.columns] == [
        *("θ", "perplexity", "bits/byte", "loss", "density", "MFLOPs/token", "active params (M)", "routing entropy"),
        "dead experts %",
    ]


def test_where_the_threshold_of_training_is_not_in_the_sweep_the_note_still_names_it():
    table = sweep_table(parse_sweep(content(0.5, 0.9, trained=1.25), "x"))
    assert table.columns[0].cells == ("0.5", "0.9")
    assert "trained with θ = 1.25" in table.note


def test_csv_has_the_thresholds_unrounded():
    rows = list(csv.DictReader(io.StringIO(sweep_table(parse_sweep(content(1 / 3, 1.0), "x")).csv())))
    assert [float(row["threshold"]) for row in rows] == [1 / 3, 1.0]
    assert [row["trained"] for row in rows] == ["0", "1"]
    assert float(rows[0]["top1"]) == 80 - 1 / 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "x/sweep.json: format is 2; this version of vmoe reads 1"),
        ({"rows": {}}, "x/sweep.json: rows is {}; allowed: a list"),
        ({"trained_threshold": None}, "x/sweep.json: trained_threshold is None; allowed: a number"),
        ({"rows": [result()]}, "x/sweep.json: rows[0]: key 'threshold' is missing"),
        ({"rows": [{"threshold": 1.0, **result(top1="71")}]}, "x/sweep.json: rows[0]: top1 is '71'; allowed: a number"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_sweep({**content(1.0), **change}, "x")
