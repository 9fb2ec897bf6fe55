"""Read a run's config: YAML, its bases, overrides, then the schema. Nothing is guessed and nothing is ignored."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from vmoe.moe.spec import MoESpec
from vmoe.untrusted import read_file

from .errors import ConfigError, config_error
from .schema import DEFAULT_TASK, TASKS, RunConfig

Mapping = dict[str, Any]
T = TypeVar("T")

LARGEST_FILE = 2**17  # bytes
MOST_BASES = 50  # one after another
MOST_LEVELS = 50  # of lists and mappings in each other
MOST_PROBLEM = 600  # characters of YAML's own message
# Keys under which the kind's name alone may stand for {kind: name}, so that `moe.gate=self` is a whole swap.
NAMED_BY_KIND = (("moe", "gate"), ("moe", "experts"))


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a file, with its bases below it and ``a.b=value`` overrides on top.

    Raises `ConfigError` for anything that cannot run as it stands: a missing or unreadable file, YAML that does
    not parse, a base that includes itself, an unknown key, a wrong type, an impossible value or combination.
    """
    return override_config(_read_with_bases(Path(path), ()), overrides, str(path))


def override_config(stored: Mapping, overrides: Sequence[str], source: str) -> RunConfig:
    """A config that was dumped to plain values, with overrides on top. Raises `ConfigError` as `load_config` does."""
    data = stored
    for override in overrides:
        data = merge(data, _parse_override(override))
    return validate(schema_for(data, source), data, source)


def schema_for(data: Mapping, source: str) -> type[RunConfig]:
    """The schema of a config's task. Raises `ConfigError` for a task that there is not."""
    task = data.get("task", DEFAULT_TASK)
    if not isinstance(task, str) or task not in TASKS:
        raise ConfigError(f"{source}: task is {task!r}; allowed: {', '.join(TASKS)}")
    return TASKS[task]


def parse_moe(moe: str | Mapping | MoESpec) -> MoESpec:
    """A spec from what users write in Python: a gate's name, a mapping as in YAML, or a spec itself."""
    if isinstance(moe, MoESpec):
        return moe
    if not isinstance(moe, str | dict):
        raise ConfigError(f"moe is {moe!r}; allowed: a gate's name, a mapping as in a config, or a MoESpec")
    data = {"gate": moe} if isinstance(moe, str) else dict(moe)
    return validate(MoESpec, _expand_kinds({"moe": data})["moe"], "moe")


def validate(schema: type[T], data: Any, source: str) -> T:
    """`data`, as it would stand in YAML or JSON, as an instance of the schema."""
    try:
        return TypeAdapter(schema).validate_json(json.dumps(data))
    except ValidationError as error:
        raise config_error(error, data, source, schema) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {error}") from None


def dump_config(config: RunConfig) -> str:
    """The resolved config as YAML; reading it back gives the same config."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def merge(below: Mapping, above: Mapping, path: tuple[str, ...] = ()) -> Mapping:
    """`above` over `below`, mapping by mapping. A gate or experts of another `kind` replace, since their keys differ;
    elsewhere (the optimizer) every kind has the same keys, and what was written stays.
    """
    merged = dict(below)
    for key, value in above.items():
        old, here = merged.get(key), (*path, key)
        if isinstance(old, dict) and isinstance(value, dict) and (here not in NAMED_BY_KIND or _same_kind(old, value)):
            merged[key] = merge(old, value, here)
        else:
            merged[key] = value
    return merged


def _same_kind(below: Mapping, above: Mapping) -> bool:
    return above.get("kind", below.get("kind")) == below.get("kind")


def _read_with_bases(path: Path, children: tuple[Path, ...]) -> Mapping:
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a name with a zero in it
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if len(children) > MOST_BASES:
        raise ConfigError(f"{path}: base leads through more than {MOST_BASES} files; allowed: fewer")
    if resolved in children:
        raise ConfigError(
            f"{path}: base leads back to itself: {' -> '.join(file.name for file in [*children, resolved])}"
        )
    data = _read_yaml(path)
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base is {base!r}; allowed: the path of a YAML file, relative to this one")
    return merge(_read_with_bases(path.parent / base, (*children, resolved)), data)


def _read_yaml(path: Path) -> Mapping:
    try:
        text = read_file(path, LARGEST_FILE).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    data = _parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {type(data).__name__}; allowed: a mapping of keys")
    return _expand_kinds(data)


def _parse_override(override: str) -> Mapping:
    key, equals, value = override.partition("=")
    shown = override if len(override) < 100 else f"{override[:97]}..."
    if not equals or key.count(".") > MOST_LEVELS or not re.fullmatch(r"[a-z_][\w]*(\.[a-z_][\w]*)*", key):
        raise ConfigError(f"override {shown!r}: allowed: key=value or section.key=value")
    nested = _parse_yaml(value, f"override {shown!r}")
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return _expand_kinds(nested)


def _expand_kinds(data: Mapping) -> Mapping:
    """The config with every name that stands for a mapping written out."""
    for section, key in NAMED_BY_KIND:
        inner = data.get(section)
        if isinstance(inner, dict) and isinstance(inner.get(key), str):
            data = {**data, section: {**inner, key: {"kind": inner[key]}}}
            inner = data[section]
    return data


class _Loader(yaml.SafeLoader):
    """YAML of plain values: numbers as in JSON, no dates, no aliases, no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias in line {self.peek_event().start_mark.line + 1}; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        known = set()
        for key in keys:
            if not isinstance(key, str):
                raise yaml.YAMLError(f"key {str(key)[:60]} in line {node.start_mark.line + 1} is no text")
            if key in known:
                raise yaml.YAMLError(f"key {key} stands twice, near line {node.start_mark.line + 1}")
            known.add(key)
        return super().construct_mapping(node, deep)


_OPENING = (
    *(yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken),
    *(yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken),
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would take for a number."""


# YAML 1.1 takes 1e-3 for text, 010 for 8, 1:30 for 90 and `no` for false; these are YAML 1.2's numbers and booleans.
_TAG = "tag:yaml.org,2002:"
_REPLACED = ("bool", "int", "float", "timestamp")
_BOOLEAN = re.compile(r"(true|True|TRUE|false|False|FALSE)$")
_INTEGER = re.compile(r"[-+]?(0|[1-9]\d*)$", re.ASCII)
_REAL = re.compile(
    r"[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$", re.ASCII
)
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")  # no bytes, sets or dates, which no key takes
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in _PLAIN
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_TAG + "bool", _BOOLEAN, list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "int", _INTEGER, list("-+0123456789"))
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_TAG + "float", _REAL, list("-+.0123456789"))


def _parse_yaml(text: str, source: str) -> Any:
    try:
        _check_levels(text)
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{source}: not the YAML of a config: {str(error)[:MOST_PROBLEM]}") from None


def _check_levels(text: str) -> None:
    """Raise `YAMLError` for lists and mappings deep in each other, over which YAML's reader, which looks at
    all that are open at every word, would take hours.
    """
    levels = 0
    for event in yaml.scan(text):
        levels += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        if levels > MOST_LEVELS:
            raise yaml.YAMLError(f"more than {MOST_LEVELS} levels in line {event.start_mark.line + 1}")
