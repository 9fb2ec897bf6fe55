"""The README's Python examples run, and its tree is the tree."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_example_runs(number):
    names: dict = {}
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), names)
    if "routing" in names:
        assert names["routing"].active.shape == (2 * 197, 8)
        assert names["routing"].active.float().mean() == 0.25


def test_there_are_examples():
    assert len(EXAMPLES) == 4


def test_every_folder_of_the_tree_is_there_and_no_other_of_vmoe():
    named = set(re.findall(r"^([\w/]+)/ +\w", README, re.MULTILINE))
    assert {path for path in named if not (ROOT / path).is_dir()} == set()
    packages = {f"vmoe/{path.parent.name}" for path in (ROOT / "vmoe").glob("*/__init__.py")}
    assert packages <= named


def test_every_linked_file_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
