"""`config.yaml` of a run, as it is written: read with care, since a page is made of any folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmoe.untrusted import open_file

CONFIG = "config.yaml"
LONGEST_CONFIG = 50_000  # bytes; a run's own has a few thousand
MOST_LEVELS = 100  # of lists and mappings in each other; with thousands YAML takes a minute


@dataclass(frozen=True)
class Config:
    """text: the file as it is. values: its keys, as YAML reads them; empty where they could not be read."""

    text: str
    values: Mapping[str, Any]

    def value(self, *keys: str) -> Any:
        """What is under ``a.b.c``; None where nothing is."""
        found: Any = self.values
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found


def read_config(path: Path, *, typed: bool = True) -> Config:
    """Read a file. typed: values as YAML takes them, else all of them as text. Raises `OSError` alone.

    Longer files, aliases and lists very deep in each other, which no run writes, are not read as keys.
    """
    import yaml

    with open_file(path) as file:
        content = file.read(LONGEST_CONFIG + 1)
    text = content.decode("utf-8", errors="replace")
    values = None
    if len(content) <= LONGEST_CONFIG:
        try:
            if _is_plain(yaml.scan(text)):
                values = yaml.load(text, yaml.SafeLoader if typed else yaml.BaseLoader)
                str(values)  # an integer may have more digits than Python writes
        except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
            values = None
    return Config(text, values if isinstance(values, Mapping) else {})


def _is_plain(tokens: Iterable[Any]) -> bool:
    """Whether a file holds no alias, and no lists and mappings very deep in each other."""
    levels = 0
    for token in tokens:
        kind = type(token).__name__
        levels += kind.endswith(("MappingStartToken", "SequenceStartToken"))
        levels -= kind.endswith(("MappingEndToken", "SequenceEndToken", "BlockEndToken"))
        if kind == "AliasToken" or levels > MOST_LEVELS:
            return False
    return True
