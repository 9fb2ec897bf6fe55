"""Every hostile input is refused in a clear line, or taken without harm, within time and memory."""

from pathlib import Path

import pytest
from hostile_reports import REPORTS
from hostile_runner import assert_well, run_case, sketched
from hostile_table import ALL, KINDS, _cell

EVERY = 16  # one in so many of each kind is run always, of those that are quick; the others with the long tests


def marked():
    for cases in KINDS.values():
        quick = [case for case in cases if not (case.alone or case.slow)][::EVERY]
        for case in cases:
            yield pytest.param(case, id=case.what, marks=[] if case in quick else [pytest.mark.slow])


@pytest.mark.parametrize("case", [*marked()])
def test_it_does_no_harm(case, empty_folder):
    with sketched():
        assert_well(case, run_case(case, empty_folder))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in REPORTS if case.status == 0], ids=lambda case: case.what)
def test_whole_pages_do_no_harm(case, empty_folder):
    assert_well(case, run_case(case._replace(seconds=case.seconds + 30), empty_folder))


def test_no_two_cases_of_a_kind_have_one_name():
    assert len(ALL) >= 60
    for cases in KINDS.values():
        names = [case.what for case in cases]
        assert sorted(set(names)) == sorted(names)


def test_the_page_lists_every_case_and_no_other():
    page = (Path(__file__).parents[2] / "docs/hostile.md").read_text(encoding="utf-8")
    rows = [
        line.split(" | ")[0].removeprefix("| ")
        for line in page.split("\n## Fuzzing")[0].splitlines()
        if " | `vmoe" in line
    ]
    assert sorted(rows) == sorted(_cell(case.what) for case in ALL)
