"""The page of a run: every section stands without the others, says what it shows, and holds nothing but its own."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from html_page import HtmlPage
from run_folders import Size, image_run, text_run

pytest.importorskip("matplotlib")

from vmoe.report.metrics import Moment, Served
from vmoe.report.run_files import read_folder
from vmoe.report.run_page import blocks, drawing, maps, save_run_page
from vmoe.report.run_page.drawing import Drawn, Job
from vmoe.report.run_page.over_time import History, target_density
from vmoe.report.run_page.series import groups, last_line, mean_line, service

SECTIONS = ["overview", "training", "load", "over-time", "experts", "maps", "layers", "record"]
FILES = ("result.json", "metrics.jsonl", "routing.npz", "routing_maps.npz", "config.yaml", "environment.json")


def undrawn(jobs: Mapping[str, Job]) -> dict[str, Drawn]:
    """In the place of figures, which take a while."""
    return {name: Drawn("<svg></svg>", (f"{name}.png",)) for name in jobs}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return image_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "damaged")


@pytest.fixture
def made(monkeypatch):
    """The page of a folder and its Markdown, without figures."""
    monkeypatch.setattr(blocks, "run_all", undrawn)

    def make(folder: Path) -> tuple[str, HtmlPage, str]:
        path = save_run_page(read_folder(folder), folder / "report")
        content = path.read_text(encoding="utf-8")
        return content, HtmlPage(content), (path.parent / "report.md").read_text(encoding="utf-8")

    return make


def sections_of(shown: HtmlPage) -> list[str]:
    """Keys of the sections, in their order; parts of sections are named by two words."""
    return [found["id"] for tag, found in shown.elements if tag == "section" and "id" in found]


def text_of(shown: HtmlPage) -> str:
    return " ".join(text for (tag, _), text in zip(shown.elements, shown.contents, strict=True) if tag != "script")


# --- whole pages -----------------------------------------------------------------------------------------


def test_figures_are_drawn_once_for_the_page_and_beside_it(tmp_path):
    """All that does not tell of time, as the command does it."""
    run = image_run(tmp_path / "run", size=Size(layers=1))
    (run / "metrics.jsonl").unlink()
    path = save_run_page(read_folder(run), run / "report")
    shown = HtmlPage(path.read_text(encoding="utf-8"))
    figures = shown.named("div", role="img")
    drawings = [found for found, _ in shown.named("svg", role="img") if "plot" in found.get("class", "")]
    pictures = re.findall(r"\]\((.*?)\)", (path.parent / "report.md").read_text(encoding="utf-8"))
    assert len(figures) == len(drawings) == 7
    assert len(pictures) == 7 + 2, "and the maps and favourites of its layer"
    assert {name.name for name in path.parent.glob("*.png")} == set(pictures)
    assert all(path.parent.joinpath(name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert not text_of(shown).count("cannot be drawn")


@pytest.mark.parametrize(
    ("make", "gate", "lacks"),
    [
        (image_run, "routing_free", set()),
        (text_run, "topk", {"maps"}),
        (image_run, "dense", {"over-time", "experts", "maps", "layers"}),
        (text_run, "dense", {"over-time", "experts", "maps", "layers"}),
    ],
)
def test_pages_have_the_sections_that_their_runs_can_have(tmp_path, made, make, gate, lacks):
    _, shown, markdown = made(make(tmp_path / "run", gate))
    assert sections_of(shown) == [key for key in SECTIONS if key not in lacks]
    assert [found["href"] for found, _ in shown.named("a")] == [f"#{key}" for key in SECTIONS if key not in lacks]
    assert "absent" not in {found.get("class") for _, found in shown.elements}
    assert ("no experts to choose from" in text_of(shown)) == (gate == "dense")
    assert markdown.startswith("# run\n")


def test_the_page_needs_nothing_else_and_allows_only_its_own_style_and_script(whole, made):
    content, shown, _ = made(whole)
    sources = {found[key] for _, found in shown.elements for key in ("src", "href") if key in found}
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in sources)
    assert not re.search(r"url\(|@import", content)
    (policy,) = (found["content"] for _, found in shown.elements if "http-equiv" in found)
    (style,) = (text for _, text in shown.named("style"))
    (script,) = (text for found, text in shown.named("script") if "type" not in found)
    for source in (style, script):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'" in policy
    names = {name for _, found in shown.elements for name in found}
    assert "style" not in names
    assert not any(name.startswith("on") for name in names)
    ids = [found["id"] for _, found in shown.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'getElementById\("([^"]+)"\)', content)) <= {*ids, "theme"}


def test_headline_figures_are_those_of_the_result(tmp_path, made):
    _, shown, markdown = made(image_run(tmp_path / "run", top1=81.25, train_flops=2.5e15))
    names = [text for (tag, _), text in zip(shown.elements, shown.contents, strict=True) if tag == "dt"]
    values = [text for (tag, _), text in zip(shown.elements, shown.contents, strict=True) if tag == "dd"]
    tiles = dict(zip(names, values, strict=True))
    assert tiles["top-1 %"] == "81.25"
    assert tiles["training PFLOPs"] == "2.50"
    assert tiles["density"] == "0.250"
    assert tiles["evaluated on"] == "12 images"
    assert "| 81.25 |" in markdown


def test_the_table_by_layer_has_every_figure_and_their_mean(whole, made):
    run = read_folder(whole).run
    _, shown, markdown = made(whole)
    names, cells = [text for _, text in shown.named("th", scope="row")], [text for _, text in shown.named("td")]
    width = len(cells) // len(names)
    rows = [[name, *cells[width * row : width * row + width]] for row, name in enumerate(names)]
    assert names == ["blocks.1.mlp", "blocks.3.mlp", "mean"]
    for row, figures in zip(rows, [*(layer.figures for layer in run.routing.layers), run.routing.mean], strict=True):
        assert row[1] == f"{figures.entropy:.3f}"
        assert row[4] == f"{100 * figures.load_max:.1f}"
        assert row[-1] == f"{100 * figures.label_information_share:.1f}"
        assert f"| {' | '.join(row)} |" in markdown


def test_each_layer_can_be_seen_and_the_first_is_without_script(whole, made):
    _, shown, _ = made(whole)
    layers = [(found["data-layer"], "open" in found) for found, _ in shown.named("details") if "data-layer" in found]
    assert layers == 4 * [("blocks.1.mlp", True), ("blocks.3.mlp", False)]
    options = [found["value"] for found, text in shown.named("option") if text.startswith(("blocks", "all"))]
    assert options[:3] == ["blocks.1.mlp", "blocks.3.mlp", ""]


def test_a_text_lists_the_tokens_that_each_expert_serves_most(tmp_path, made):
    """By hand, for the first expert: the six largest of its counts, or all that are not 0."""
    run = text_run(tmp_path / "run", size=Size(labels=9, samples=40))
    content, shown, _ = made(run)
    layer = read_folder(run).counts.layers["transformer.h.1.mlp"]
    counts = sorted(layer.pairs_by_label[:, 0].tolist(), reverse=True)[:6]
    shares = [f"{count:,} · " for count in counts if count]
    found = [text for _, text in shown.named("span", **{"class": "count"})][: len(shares)]
    assert [one.startswith(share) for one, share in zip(found, shares, strict=True)] == [True] * len(shares)
    assert {"␣the", "↵", "ing"} <= {text for _, text in shown.named("code")}
    assert re.search(r"␣the</code><span class=\"count\">\d+ · \d+%", content)


def test_maps_that_would_make_the_page_large_have_fewer_images(whole, made, monkeypatch):
    assert "of the 3 images" not in made(whole)[0]
    monkeypatch.setattr(maps, "LARGEST", 1000)
    content, shown, _ = made(whole)
    assert "1 of the 3 images of routing_maps.npz" in content
    assert len(shown.named("img")) == 1


# --- what is missing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_without_one_file_the_page_says_so_at_its_place_and_shows_the_rest(whole, folder, made, name):
    (folder / name).unlink()
    _, shown, markdown = made(folder)
    assert sections_of(shown) == [*SECTIONS, "problems"]
    told = [
        text for (_, found), text in zip(shown.elements, shown.contents, strict=True) if found.get("class") == "absent"
    ]
    assert any(f"{folder / name} is missing: vmoe" in text for text in told)
    assert [text for _, text in shown.named("li")][-1].startswith(f"{folder / name} is missing")
    assert f"{name} is missing".replace("_", r"\_") in markdown
    drawn_before = set(re.findall(r"\]\((.*?)\)", made(whole)[2]))
    drawn_now = set(re.findall(r"\]\((.*?)\)", markdown))
    assert drawn_now <= drawn_before
    assert len(drawn_now) >= 8


@pytest.mark.parametrize("name", FILES)
def test_with_one_file_alone_there_is_a_page(whole, tmp_path, made, name):
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copy(whole / name, folder)
    _, shown, _ = made(folder)
    assert sections_of(shown)[:3] == ["overview", "training", "load"]
    assert sections_of(shown)[-1] == "problems"


def test_with_everything_damaged_there_is_a_page(folder, made):
    for name in FILES:
        (folder / name).write_bytes(b"\x00\xff<script>")
    _, shown, _ = made(folder)
    assert sections_of(shown) == [*SECTIONS, "problems"]
    assert len([found for found, _ in shown.named("script")]) == 1
    for name in FILES:
        assert name in text_of(shown)


def test_a_figure_that_cannot_be_drawn_says_why_in_its_place(tmp_path):
    def draw():
        raise ValueError("load_LE has shape (0,); allowed: <more>")

    drawn = drawing.run_all({"a": drawing.job(drawing.Drawing("A", draw), "a", tmp_path)})
    assert drawn["a"].pictures == ()
    assert "cannot be drawn: load_LE has shape (0,); allowed: &lt;more&gt;." in drawn["a"].html
    block = blocks.Plot("a", "A", draw, "a caption")
    assert "cannot be drawn" in block.html(drawn)
    assert "![" not in block.markdown(drawn)


def test_figures_drawn_in_other_processes_are_the_same(monkeypatch):
    jobs = {f"job {number}": lambda number=number: Drawn(str(number)) for number in range(20)}
    monkeypatch.setattr(drawing.os, "sched_getaffinity", lambda _: {0, 1})
    many = drawing.run_all(jobs)
    monkeypatch.setattr(drawing.os, "sched_getaffinity", lambda _: {0})
    assert many == drawing.run_all(jobs) == {f"job {number}": Drawn(str(number)) for number in range(20)}
    assert drawing._JOBS == {}


# --- hostile names ---------------------------------------------------------------------------------------

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' onmouseover=alert(1) \u202e`](x)|"


def test_hostile_names_bring_in_no_element(tmp_path, made):
    plain, hostile = (image_run(tmp_path / name, maps=False, model="x", data="y") for name in ("plain", "hostile"))
    for name in ("result.json", "metrics.jsonl", "config.yaml", "environment.json"):
        path = hostile / name
        content = path.read_text(encoding="utf-8").replace("blocks.1.mlp", HOSTILE.replace('"', r"\""))
        path.write_text(content.replace("x86_64 CPU", HOSTILE.replace('"', r"\"")), encoding="utf-8")
    with np.load(hostile / "routing.npz") as file:
        arrays = {**file, "layers": np.array([HOSTILE, "blocks.3.mlp"]), "labels": np.array([HOSTILE] * 5)}
    np.savez(hostile / "routing.npz", **arrays)
    content, shown, markdown = made(hostile)
    assert [len(read_folder(run).problems) for run in (plain, hostile)] == [1, 1], "the maps alone"
    tags = [[tag for tag, _ in one.elements] for one in (made(plain)[1], shown)]
    assert tags[0] == tags[1]
    assert not any(name.startswith("on") for _, found in shown.elements for name in found)
    assert "<script>alert" not in markdown.replace(r"\<", "")
    assert "\u202e" not in content


# --- thinning --------------------------------------------------------------------------------------------


def test_groups_are_equal_but_for_the_first():
    assert groups(7, 3) == [slice(0, 1), slice(1, 4), slice(4, 7)]
    assert groups(3, 5) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert groups(0, 5) == []
    assert all(len(groups(count, 10)) <= 10 for count in range(100))


def moments(count: int) -> list[Moment]:
    """Loss and λ of each is its step; the first of two experts serves as many tokens as the step, of 100."""
    return [
        Moment(step, step / 10, {"loss": step, "λ": step}, {"a": Served(100, (step, 100 - step))})
        for step in range(1, count + 1)
    ]


def test_long_runs_have_means_of_losses_and_ends_of_factors():
    """By hand: 4 lines as 2 points, of steps 1, 2 and 3, 4."""
    assert mean_line(moments(4), "loss", 2) == ([2, 4], [1.5, 3.5], 2)
    assert last_line(moments(4), "λ", 2) == ([2, 4], [2, 4], 1)
    assert mean_line(moments(4), "top1") == ([], [], 1)


def test_service_adds_up_what_it_thins_out():
    found = service(moments(4), "a", 2)
    assert found == ([2, 4], [Served(200, (3, 197)), Served(200, (7, 193))], 2)
    assert service(moments(4), "b") == ([], [], 1)


def test_history_is_of_training_or_else_of_evaluations(whole, folder):
    metrics = read_folder(whole).metrics
    assert "12 lines of the log" in History.of(metrics).basis
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join(line for line in lines if '"kind": "train"' not in line))
    only = History.of(read_folder(folder).metrics)
    assert only.basis == "Counted in 4 evaluations."
    assert list(only.layers) == ["blocks.1.mlp", "blocks.3.mlp"]


@pytest.mark.parametrize(
    ("gate", "target"),
    [("{target_density: 0.3}", 0.3), ("{k: 3}", 0.375), ("{k: 9}", None), ("topk", None), ("{k: x}", None)],
)
def test_the_target_density_is_the_gates_own_or_k_of_its_experts(folder, gate, target):
    (folder / "config.yaml").write_text(f"moe: {{gate: {gate}, num_experts: 8}}\n")
    assert target_density(read_folder(folder)) == target
