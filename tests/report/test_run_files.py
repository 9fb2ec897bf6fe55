"""A run folder's parts: whatever is missing or damaged, it is told in a sentence, and the rest is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_folders import image_run, text_run

from vmoe import untrusted
from vmoe.report.run_files import home_of, read_folder

PARTS = {
    "result.json": "run",
    "metrics.jsonl": "metrics",
    "routing.npz": "counts",
    "routing_maps.npz": "maps",
    "config.yaml": "config",
    "environment.json": "environment",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return image_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "damaged")


def parts_of(files):
    return {name: getattr(files, part) for name, part in PARTS.items()}


def test_a_whole_run_has_every_part_and_no_problem(whole):
    files = read_folder(whole)
    assert files.problems == ()
    assert None not in parts_of(files).values()
    assert (files.name, files.home, files.gate, files.task.name) == ("whole", whole, "routing_free", "images")
    assert files.config.value("moe", "gate", "target_density") == 0.25
    assert files.config.value("moe", "gate", "nothing") is files.config.value("seed", "deeper") is None


@pytest.mark.parametrize("make", [image_run, text_run])
def test_runs_lack_only_what_their_kind_cannot_have(tmp_path, make):
    """A dense model has no routing; a text has no images."""
    assert read_folder(make(tmp_path / "dense", "dense")).problems == ()
    assert read_folder(make(tmp_path / "topk", "topk")).problems == ()


@pytest.mark.parametrize("name", PARTS)
def test_what_is_missing_is_told_with_what_would_make_it(folder, name):
    (folder / name).unlink()
    files = read_folder(folder)
    assert [missing for missing, part in parts_of(files).items() if part is None] == [name]
    (problem,) = files.problems
    assert problem.startswith(f"{folder / name} is missing: vmoe ")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(np.random.default_rng(1).bytes(3000)),
    "nested": lambda path: path.write_bytes(b"[" * 30_000),
    "of another kind": lambda path: path.write_text('"a text"\n'),
    "a folder": folder_instead,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", PARTS)
def test_what_is_damaged_takes_nothing_else_with_it(whole, folder, name, damage):
    DAMAGE[damage](folder / name)
    files = read_folder(folder)
    others = {other for other, part in parts_of(files).items() if part is not None} | {name}
    assert others == set(PARTS)
    if files.problems:
        assert all(str(folder / name) in problem or name in problem for problem in files.problems)
        assert len(files.problems) <= 6
    else:
        assert (name, damage) in {("config.yaml", "cut"), ("metrics.jsonl", "empty")}, "still valid"


def test_a_file_that_may_not_be_read(folder, monkeypatch):
    """As its owner sees it; whoever runs the tests may be allowed to read everything."""
    opened = untrusted.open_file

    def refuse(path):
        if path.name in ("environment.json", "result.json"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(untrusted, "open_file", refuse)
    files = read_folder(folder)
    assert files.run is files.environment is None
    assert all("Permission denied" in problem for problem in files.problems)


def test_many_lines_that_cannot_be_read_are_told_in_a_few_sentences(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("{\n" * 100)
    files = read_folder(folder)
    assert len(files.metrics.train) == 12
    assert len(files.problems) == 6
    assert files.problems[-1] == "metrics.jsonl: 95 lines more could not be read."


def change_result(folder: Path, change) -> None:
    result = json.loads((folder / "result.json").read_text())
    change(result)
    (folder / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda result: result.update(format=2), "format is 2"),
        (lambda result: result.update(top1="high"), "top1 is 'high'"),
        (lambda result: result["routing"]["layers"][1].update(load=[0.5]), "experts_per_token has 5 counts"),
        (
            lambda result: result["routing"]["layers"][1].update(entropy=float("nan")),
            "blocks.3.mlp: entropy is no number",
        ),
        (lambda result: result["routing"]["layers"][1].update(layer="blocks.9.mlp"), "are of different evaluations"),
        (lambda result: result["routing"]["layers"].pop(), "are of different evaluations"),
        (lambda result: result.update(routing={"mean": None, "layers": []}), "vmoe eval without --no-routing"),
    ],
)
def test_what_a_result_says_wrong(folder, change, words):
    change_result(folder, change)
    (problem,) = read_folder(folder).problems
    assert words in problem
    assert str(folder / "result.json") in problem


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("0.pairs", lambda array: array / 2),
        ("0.pairs", lambda array: -array),
        ("1.both", lambda array: array[:1]),
        ("0.tokens", lambda array: array[None]),
        ("0.pairs_by_label", lambda array: array[:-1]),
        ("0.grid", lambda array: array + 1),
        ("1.grid", lambda array: array[:2]),
        ("format", lambda array: array + 1),
    ],
)
def test_counts_that_do_not_fit_together(folder, key, change):
    path = folder / "routing.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, key: change(arrays[key])})
    files = read_folder(folder)
    assert files.counts is None
    (problem,) = files.problems
    assert str(path) in problem
    assert key.split(".")[-1] in problem


def test_an_evaluation_takes_from_its_run_what_it_has_not(whole, folder):
    inside = folder / "eval" / "last-val"
    inside.mkdir(parents=True)
    for name in ("result.json", "routing.npz"):
        shutil.copy(whole / name, inside)
    files = read_folder(inside)
    assert files.name == "damaged/eval/last-val"
    assert files.home == folder
    assert (len(files.metrics.train), files.config.value("moe", "num_experts")) == (12, 4)
    (problem,) = files.problems
    assert problem.startswith(
        f"{inside / 'routing_maps.npz'} is missing: vmoe eval {folder / 'checkpoints' / 'last.pt'}"
    )


def test_a_run_that_lies_in_a_folder_named_eval_is_a_run(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "eval" / "mine")
    assert home_of(folder) == folder
    assert read_folder(folder).name == "mine"


def test_folders_are_named_alike_from_within(whole, folder, monkeypatch):
    inside = folder / "eval" / "last-val"
    inside.mkdir(parents=True)
    shutil.copy(whole / "result.json", inside)
    monkeypatch.chdir(inside.parent)
    assert read_folder("last-val").name == "damaged/eval/last-val"
    assert read_folder("last-val").config is not None
    monkeypatch.chdir(folder)
    assert read_folder(".").name == "damaged"


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"holds nothing of a run; allowed: .* result\.json"):
        read_folder(tmp_path)


def test_any_one_file_is_a_run(whole, tmp_path):
    for name, part in PARTS.items():
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(whole / name, folder)
        assert getattr(read_folder(folder), part) is not None
