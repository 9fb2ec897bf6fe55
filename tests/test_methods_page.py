"""docs/methods.md names code that exists, every gate, and every default."""

import dataclasses
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from vmoe.moe import GateSpec

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
GATES = {gate.kind: gate for gate in get_args(get_args(GateSpec)[0])}
LINKS = re.findall(r"\[`(\w+)`\]\(\.\./([\w/.]+)\)", PAGE)


def section(kind):
    return PAGE.split(f"\n## `{kind}`\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(("name", "file"), LINKS)
def test_what_is_named_is_there(name, file):
    assert re.search(rf"^\s*(class|def) {name}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("kind", GATES)
def test_every_gate_has_a_section_with_its_code_and_its_defaults(kind):
    text = section(kind)
    assert re.search(LINK, text)
    for field in dataclasses.fields(GATES[kind]):
        if field.name != "kind":
            assert f"`{written(field.name, field.default)}`" in text, field.name


LINK = r"\[`\w+`\]\(\.\./vmoe/moe/"


def written(key, default):
    """As in a config."""
    return yaml.safe_dump({key: default}).strip()
