"""`config.yaml` of a run, as it is written: read with care, since a page is made of any folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "config.yaml"
LONGEST_CONFIG = 50_000  # bytes; a run's own has a few thousand
MOST_LISTS = 500  # within each other, more take YAML a minute


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

    Longer files, aliases and very many lists, which no run writes, are not read as keys.
    """
    import yaml

    with path.open("rb") as file:
        content = file.read(LONGEST_CONFIG + 1)
    text = content.decode("utf-8", errors="replace")
    values = None
    if len(content) <= LONGEST_CONFIG and text.count("[") < MOST_LISTS:
        try:
            if not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.BaseLoader)):
                values = yaml.load(text, yaml.SafeLoader if typed else yaml.BaseLoader)
        except (yaml.YAMLError, ValueError, RecursionError):
            values = None
    return Config(text, values if isinstance(values, Mapping) else {})
