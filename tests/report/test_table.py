"""The table of a comparison: what it shows, and that its three renderings agree."""

import csv
import io

import pytest
from synthetic import result, text_result

from vmoe.report import comparison, parse_result
from vmoe.report.table import Column, Table

UNEVEN = [0.5, 0.25, 0.25, 0.0]
# entropy: (0.5·ln 2 + 2·0.25·ln 4) / ln 4 = 0.75; least with k = 2: ln 2 / ln 4 = 0.5
# CV: deviations from 0.25 are 0.25, 0, 0, −0.25; sqrt(0.125 / 4) / 0.25 = 0.7071


def run(name, gate="topk", **changes):
    return parse_result(result(gate, **changes), name)


def cells(table, row=0):
    return {column.header: column.cells[row] for column in table.columns}


def test_the_row_of_a_run():
    row = cells(comparison([run("runs/first", loads=[UNEVEN])]))
    assert row == {
        "run": "first",
        "gate": "topk",
        "top-1 %": "71.50",
        "top-5 %": "90.25",
        "params (M)": "5.72",
        "active params (M)": "5.72",
        "GFLOPs/image": "2.50",
        "training PFLOPs": "1.50",
        "routing entropy": "0.750 (≥ 0.50)",
        "largest load %": "50.0",
        "load CV": "0.71",
        "dead experts %": "25.0",
        "density": "0.500",
        "images/s": "1234",
    }


def text_run(name, gate="topk", **changes):
    return parse_result(text_result(gate, **changes), name)


def test_the_row_of_a_language_model():
    row = cells(comparison([text_run("runs/first", loads=[UNEVEN], information=0.125)]))
    assert row == {
        "run": "first",
        "gate": "topk",
        "perplexity": "24.75",
        "bits/byte": "1.062",
        "params (M)": "5.72",
        "active params (M)": "5.72",
        "MFLOPs/token": "250.00",
        "training PFLOPs": "1.50",
        "routing entropy": "0.750 (≥ 0.50)",
        "largest load %": "50.0",
        "load CV": "0.71",
        "dead experts %": "25.0",
        "density": "0.500",
        "label information %": "12.5",
        "tokens/s": "54321",
    }


def test_sparse_columns_stand_only_where_a_run_has_them():
    bare, full = text_run("bare", bits_per_byte=None), text_run("full", information=0.5)
    assert not {"bits/byte", "label information %"} & set(cells(comparison([bare])))
    row = cells(comparison([bare, full]))
    assert (row["bits/byte"], row["label information %"]) == ("–", "–")


def test_runs_of_both_tasks_share_a_table_of_all_columns():
    images, text = run("images"), text_run("text", information=0.5)
    table = comparison([text, images])
    apart = [set(cells(comparison([one]))) for one in (images, text)]
    headers = [column.header for column in table.columns]
    assert set(headers) == apart[0] | apart[1]
    assert headers[2:6] == ["top-1 %", "top-5 %", "perplexity", "bits/byte"]
    for index, (own, other) in enumerate([(apart[1], apart[0]), (apart[0], apart[1])]):
        row = cells(table, index)
        assert all(row[header] == "–" for header in other - own)
        assert all(row[header] == cells(comparison([[text, images][index]]))[header] for header in own)
    first, second = csv.DictReader(io.StringIO(table.csv()))
    assert (first["perplexity"], first["top1"]) == ("24.75", "")
    assert (second["perplexity"], second["top1"]) == ("", "71.5")
    assert all(line.count("|") == len(headers) + 1 for line in table.markdown().split("\n\n")[0].splitlines())


def test_the_note_speaks_of_the_tasks_there_are():
    assert "erplexity" not in comparison([run("images")]).note
    assert "erplexity" in comparison([run("images"), text_run("text")]).note


def test_dense_has_dashes_where_there_is_no_routing():
    row = cells(comparison([run("topk"), run("dense", "dense")]), row=1)
    dashes = {header for header, cell in row.items() if cell == "–"}
    assert dashes == {"routing entropy", "largest load %", "load CV", "dead experts %", "density"}


def test_what_is_missing_is_a_dash_and_counts_for_no_prefix():
    table = comparison([run("a", train_flops=None, top5=None), run("b", train_flops=3e18)])
    assert cells(table)["training EFLOPs"] == "–"
    assert cells(table, 1)["training EFLOPs"] == "3.00"
    assert cells(table)["top-5 %"] == "–"


@pytest.mark.parametrize(
    ("flops", "header", "shown"),
    [
        ([9.2e9, 4.6e9], "GFLOPs/image", ["9.20", "4.60"]),
        ([9.2e9, 4.6e7], "MFLOPs/image", ["9200.00", "46.00"]),  # the smallest decides
        ([5e5], "MFLOPs/image", ["0.50"]),
        ([2e12], "TFLOPs/image", ["2.00"]),
        ([0], "MFLOPs/image", ["0.00"]),
    ],
)
def test_one_prefix_for_a_column(flops, header, shown):
    table = comparison([run(str(i), flops_per_image=value) for i, value in enumerate(flops)])
    assert [cells(table, i)[header] for i in range(len(flops))] == shown


def test_text_is_aligned():
    lines = comparison([run("ein größerer Lauf"), run("dense", "dense", top1=100)]).text().splitlines()
    rule = next(line for line in lines if set(line) == {"─", " "})
    header, rows = lines[: lines.index(rule)], lines[lines.index(rule) + 1 :][:2]
    gaps = [i for i, character in enumerate(rule) if character == " "]
    for line in [*header, *rows]:
        assert all(line[i] == " " for i in gaps if i < len(line))
    start = rule.index(" ") + 2 + len("dense") + 2  # of the column after run and gate
    end = rule.index(" ", start)
    assert [row[start:end] for row in rows] == ["  71.50", " 100.00"]  # 7 wide, as its header
    assert rows[0].startswith("ein größerer Lauf  topk ")
    assert rows[1].startswith("dense              dense")


def test_wide_and_combining_characters_keep_the_columns():
    names = Column("name", ("模型", "é", "abcd"), {}, numeric=False)
    numbers = Column("n", ("1", "22", "333"), {})
    assert Table((names, numbers)).text().splitlines()[-3:] == ["模型    1", "é      22", "abcd  333"]


def test_markdown_has_one_cell_a_column_and_escapes_pipes():
    table = comparison([run("a|b"), run("dense", "dense")])
    header, rule, *rows = table.markdown().split("\n\n")[0].splitlines()
    assert rule.count("---:") == len(table.columns) - 2  # all but run and gate are numbers
    for line in [header, rule, *rows]:
        assert line.replace(r"\|", "").count("|") == len(table.columns) + 1
    assert rows[0].startswith(r"| a\|b | topk |")
    assert "| – | – | – | – | – |" in rows[1]


def test_csv_gives_back_the_numbers_unrounded():
    runs = [run('with "quotes", and\ncomma', loads=[[1 / 3, 2 / 3]]), run("dense", "dense")]
    first, second = csv.DictReader(io.StringIO(comparison(runs).csv()))
    assert first["run"] == 'with "quotes", and\ncomma'
    for key in ["top1", "top5", "params", "flops_per_image", "train_flops", "images_per_second"]:
        assert float(first[key]) == result()[key]
    for key in ["entropy", "entropy_min", "load_max", "load_cv", "dead", "density"]:
        assert float(first[key]) == getattr(runs[0].routing.mean, key)
        assert second[key] == ""


def test_runs_of_one_name_go_by_their_folders():
    table = comparison([run("a/demo"), run("b/demo"), run("b/other")])
    assert table.columns[0].cells == ("a/demo", "b/demo", "other")


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="give at least one run"):
        comparison([])
