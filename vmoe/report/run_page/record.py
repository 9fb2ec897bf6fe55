"""By what the run came about: config, environment; and what is missing of its files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from vmoe.report.config import CONFIG
from vmoe.report.page import escape
from vmoe.report.run_files import ENVIRONMENT, RunFiles

from .blocks import Absent, Block, Undrawn, plain
from .drawing import Drawings
from .overview import Facts
from .reasons import why

LONGEST_FACT = 2_000  # characters


@dataclass(frozen=True)
class Folded(Undrawn):
    """A text that is unfolded by a click."""

    name: str
    text: str

    def html(self, drawn: Drawings) -> str:
        return f"<details><summary>{escape(self.name)}</summary><pre>{escape(self.text)}</pre></details>"

    def markdown(self, drawn: Drawings) -> str:
        return "".join(f"    {line}\n" for line in self.text.splitlines())


@dataclass(frozen=True)
class Listed(Undrawn):
    entries: tuple[str, ...]

    def html(self, drawn: Drawings) -> str:
        return f'<ul class="problems">{"".join(f"<li>{escape(entry)}</li>" for entry in self.entries)}</ul>'

    def markdown(self, drawn: Drawings) -> str:
        return "".join(f"- {plain(entry)}\n" for entry in self.entries)


def record(files: RunFiles) -> list[Block]:
    blocks: list[Block] = []
    if files.config is None:
        blocks.append(Absent(f"No config: {why(files, CONFIG)}"))
    else:
        blocks.append(Folded(CONFIG, files.config.text))
    if files.environment is None:
        blocks.append(Absent(f"No environment: {why(files, ENVIRONMENT)}"))
    else:
        blocks.append(Facts({str(key): said(key, value) for key, value in files.environment.items()}))
    return blocks


def said(key: str, value: object) -> str:
    """A fact of the environment in a line."""
    if value is None:
        text = "none"
    elif isinstance(value, list):
        text = shlex.join(map(str, value))
    elif isinstance(value, Mapping):
        text = ", ".join(f"{name} {'not installed' if one is None else one}" for name, one in value.items())
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return text[:LONGEST_FACT]
