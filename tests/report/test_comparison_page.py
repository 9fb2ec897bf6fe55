"""The folder of a comparison: its page, its tables, its pictures."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser

import pytest
from comparable import log, run_of
from synthetic import result, write

from vmoe.report import read_run
from vmoe.report.comparison_page import save_comparison
from vmoe.report.run_page import blocks
from vmoe.report.run_page.drawing import Drawn
from vmoe.report.seeds import rows_of

HOSTILE = "</td><script>alert(1)</script>\" onload='x' \u202e|&lt;".replace("/", "\u2215")
VOID = {"meta", "input", "br", "img"}


class Page(HTMLParser):
    """Elements as (tag, attributes); the text of table cells, row by row; all text."""

    def __init__(self, content):
        super().__init__()
        self.elements, self.open, self.rows, self.text = [], [], [], ""
        self.feed(content)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, text):
        if not {"script", "style"} & set(self.open):
            self.text += text
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += text


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take most of the time; here each is one word."""
    titles = []

    def job(drawing, name, folder):
        titles.append(drawing.title)
        return lambda: Drawn(f"<p>{blocks.escape(drawing.title)}</p>")

    monkeypatch.setattr(blocks, "job", job)
    return titles


def page_of(runs, folder):
    return Page(save_comparison(rows_of(runs), folder).read_text(encoding="utf-8"))


def logged(folder, seed=0, **options):
    """A run with a log of two training lines and an evaluation."""
    run = run_of(folder, seed, **options)
    routing = {"routing": {"entropy": 0.9, "density": 0.5}} if run.routing else {}
    scores = {run.task.score: run.measured[run.task.score]}
    training = ({"kind": "train", "step": step, "loss": 3.0 / step, **routing} for step in (1, 2))
    log(folder, *training, {"kind": "evaluation", "step": 2, **scores, **routing})
    return run


def test_a_folder_holds_the_page_the_tables_and_a_picture_of_each_figure(tmp_path):
    few = {"flops_per_image": None, "train_flops": None}  # and no log, so that fewer are drawn
    runs = [run_of(tmp_path / "a", top1=71.25, **few), run_of(tmp_path / "dense", gate="dense", **few)]
    folder = tmp_path / "new" / "comparison"
    page = page_of(runs, folder)
    drawings = [attributes for tag, attributes in page.elements if tag == "svg"]
    pictures = list(folder.glob("*.png"))
    assert len(drawings) == len(pictures) == 4  # score against entropy, entropy by layer, experts per token, load
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert [row["top1"] for row in csv.DictReader((folder / "table.csv").open(encoding="utf-8"))] == ["71.25", "71.5"]
    assert "| moe.gate.kind | topk | dense |" in (folder / "table.md").read_text(encoding="utf-8")
    assert ["moe.gate.kind", "topk", "dense"] in page.rows
    assert "Coefficient λ: no run has logged any." in page.text
    nothing = {"style", "onload", "onclick", "onerror", "src"}
    assert not any(nothing & set(attributes) for _, attributes in page.elements)
    assert all(found.get("href", "#")[0] in "#d" for _, found in page.elements)  # of the page itself, or data:


def test_names_stay_text(tmp_path, undrawn):
    run = logged(tmp_path / HOSTILE)
    content = (run.folder / "config.yaml").read_text().replace("digits", "'<img src=x>'")
    (run.folder / "config.yaml").write_text(content.replace(f"output: {run.folder}", "output: x"))
    page = page_of([run, logged(tmp_path / "plain")], tmp_path / "out")
    assert [tag for tag, _ in page.elements].count("script") == 1  # the page's own
    assert "img" not in {tag for tag, _ in page.elements}
    shown = HOSTILE.replace("\u202e", "⟨U+202E⟩")
    assert [row[0] for row in page.rows].count(shown) == 2  # among the results and among the runs
    assert ["data.train", "<img src=x>", "digits"] in page.rows
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_every_task_has_its_figures(tmp_path, undrawn):
    runs = [logged(tmp_path / "images"), logged(tmp_path / "text", text=True)]
    page = page_of(runs, tmp_path / "out")
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == [
        *("table", "configs", "images-score", "images-training", "images-routing"),
        *("text-score", "text-training", "text-routing", "runs"),
    ]
    assert undrawn.count("Training loss") == 2
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert links == {f"#{section}" for section in sections}


def test_what_is_missing_is_said_and_the_rest_is_shown(tmp_path, undrawn):
    bare = read_run(write(tmp_path / "bare", result(flops_per_image=None)))
    page = page_of([bare, logged(tmp_path / "whole")], tmp_path / "out")
    assert re.search(r"bare/metrics\.jsonl cannot be read", page.text)
    assert "Not known of: bare." in page.text
    assert "No config.yaml that can be read: bare;" in page.text
    assert {"Active FLOPs", "Training loss", "Load: bare", "Load: whole"} <= set(undrawn)


def test_dense_runs_alone_have_no_routing_to_show(tmp_path, undrawn):
    page = page_of([logged(tmp_path / "a", gate="dense")], tmp_path / "out")
    assert "None of these has experts" in page.text
    assert undrawn == ["Active FLOPs", "Training FLOPs", "Training loss", "Score"]


def test_configs_alike_are_said_to_be(tmp_path, undrawn):
    runs = [logged(tmp_path / f"a_{seed}", seed) for seed in (0, 1)]
    page = page_of(runs, tmp_path / "out")
    assert "differ in nothing but seeds" in page.text
    assert [row[:4] for row in page.rows if row[0] == "a"] == [
        ["a", "2", "topk", "71.50"],
        ["a", str(runs[0].folder), "0", "100"],
        ["a", str(runs[1].folder), "1", "100"],
    ]
    assert "Load: a" in undrawn
    assert "Seed 0." in page.text


def test_the_best_is_bold(tmp_path, undrawn):
    runs = [
        logged(tmp_path / f"{name}_{seed}", seed, balance=name, top1=top1 + seed)
        for name, top1 in (("1", 60), ("2", 70))
        for seed in range(3)
    ]
    content = save_comparison(rows_of(runs), tmp_path / "out").read_text(encoding="utf-8")
    assert re.findall(r"<strong>(.*?)</strong>", content) == ["71.00 ± 1.00"]
    assert "Bold: the best" in content


def test_seeds_of_several_commits_are_told(tmp_path, undrawn):
    runs = [logged(tmp_path / f"a_{seed}", seed) for seed in (0, 1)]
    for run, commit in zip(runs, ("0" * 40, "1" * 40 + "+changes"), strict=True):
        (run.folder / "environment.json").write_text(f'{{"commit": "{commit}", "device": "cpu"}}')
    page = page_of(runs, tmp_path / "out")
    assert "a: its seeds are of 2 commits." in page.text
    assert "devices" not in page.text
    assert [row[5] for row in page.rows if row[0] == "a" and len(row) == 8] == ["0" * 12, "1" * 12 + "+changes"]


def test_of_many_rows_the_first_are_drawn(tmp_path, undrawn):
    page = page_of([logged(tmp_path / f"r{n}", balance=str(n)) for n in range(14)], tmp_path / "out")
    assert "Of 14 rows the first 12 are drawn; without lines and maps: r12, r13." in page.text
    assert [title for title in undrawn if title.startswith("Load")] == [f"Load: r{n}" for n in range(12)]


def test_layers_with_different_numbers_of_experts_are_no_map(tmp_path, undrawn):
    run = logged(tmp_path / "a", loads=[[0.5, 0.5], [0.25, 0.25, 0.25, 0.25]])
    page = page_of([run], tmp_path / "out")
    assert "its layers differ in their number of experts" in page.text
    assert "Routing entropy by layer" in undrawn
