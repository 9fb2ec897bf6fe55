"""Every wrong input is refused with a message that names what is wrong, before anything is written."""

from pathlib import Path

import pytest
from world import vmoe
from wrong_inputs import ALL, make_wrong_world


@pytest.fixture(scope="module")
def wrong_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_wrong_world(folder)
    return folder


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.what)
def test_refused_by_name_and_nothing_is_lost(case, wrong_world, monkeypatch):
    monkeypatch.chdir(wrong_world)
    before = snapshot(wrong_world)
    outcome = vmoe(*case.command)
    assert outcome.status == 2, outcome
    for fragment in case.says:
        assert fragment in outcome.err
    after = snapshot(wrong_world)
    assert {path: after.get(path) for path in before} == before
    assert not Path("code_ran").exists()


def test_the_page_of_errors_lists_every_case():
    page = (Path(__file__).parents[2] / "docs/errors.md").read_text(encoding="utf-8")
    assert [case.what for case in ALL if f"| {case.what} | `vmoe {' '.join(case.command)}` |" not in page] == []
