"""Accuracy by class on the page of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from html_page import HtmlPage
from run_folders import Size, image_run

pytest.importorskip("matplotlib")

from vmoe.report.classes import CLASSES, ClassAccuracy, save_classes
from vmoe.report.run_files import read_folder
from vmoe.report.run_page import save_run_page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Of a model without experts, whose page has no figures but those of training."""
    folder = image_run(tmp_path / "run", "dense", Size(lines=2, evaluations=1))
    (folder / "metrics.jsonl").unlink()
    return folder


def page_of(run: Path) -> tuple[HtmlPage, str]:
    page = save_run_page(read_folder(run), run / "report")
    return HtmlPage(page.read_text(encoding="utf-8")), (page.parent / "report.md").read_text(encoding="utf-8")


def part_of(markdown: str) -> list[str]:
    """Lines of the section."""
    return markdown.split("## Accuracy by class\n")[1].split("\n## ")[0].splitlines()


def test_few_classes_are_all_shown_the_worst_first(run):
    classes = [ClassAccuracy("n1", "cat", 10, 9), ClassAccuracy("dog", "dog", 4, 1), ClassAccuracy("eel", "eel", 5, 3)]
    save_classes(classes, run / CLASSES)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "calibration_error": 0.0625}))
    shown, markdown = page_of(run)
    lines = part_of(markdown)
    # (90 + 25 + 60) / 3
    assert "3 classes (12 images evaluated): mean accuracy 58.33 %, median 60.00 %, from 25.00 to 90.00 %." in lines[1]
    assert "calibration error 0.0625" in lines[1]
    rows = [line for line in lines if line.startswith(("| dog", "| eel", "| cat"))]
    assert rows == ["| dog | 4 | 1 | 25.00 |", "| eel | 5 | 3 | 60.00 |", "| cat (n1) | 10 | 9 | 90.00 |"]
    assert "classes" in [found.get("id") for tag, found in shown.elements if tag == "section"]


def test_of_many_classes_the_worst_and_the_best(run):
    save_classes([ClassAccuracy(f"c{number}", f"c{number}", 100, number) for number in range(60)], run / CLASSES)
    rows = re.findall(r"^\| c(\d+) ", "\n".join(part_of(page_of(run)[1])), re.MULTILINE)
    assert list(map(int, rows)) == [*range(10), *range(59, 49, -1)]


def test_a_damaged_file_is_said_at_its_place_and_a_missing_one_is_of_an_older_run(run):
    before = page_of(run)[1]
    assert "## Accuracy by class" not in before
    assert CLASSES not in before
    (run / CLASSES).write_text("class,name\n")
    shown, markdown = page_of(run)
    assert any("No accuracy by class:" in line and "its columns are" in line for line in part_of(markdown))
    assert CLASSES in shown.named("li")[-1][1] + shown.named("li")[-2][1]
