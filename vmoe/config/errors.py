"""Wording of configuration errors: key path, value, what is allowed, nearest known key."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

LONGEST = 200  # characters of a value in an error
MOST_PROBLEMS = 10  # in one error


class ConfigError(ValueError):
    """A config that cannot run; the message names each key, its value and what is allowed."""


def config_error(error: ValidationError, data: Any, source: str, schema: type) -> ConfigError:
    """One readable error for everything pydantic found wrong in `data`, which came from `source`."""
    by_key: dict[tuple[str | int, ...], list[Any]] = {}
    for found in error.errors():
        by_key.setdefault(_keys(found["loc"], data, missing=found["type"] == "missing"), []).append(found)
    problems = [_problem(keys, by_key[keys], schema) for keys in list(by_key)[:MOST_PROBLEMS]]
    if len(by_key) > MOST_PROBLEMS:
        problems.append(f"and {len(by_key) - MOST_PROBLEMS:,} problems more")
    return ConfigError(f"{source}: " + "\n".join(problems))


def _keys(loc: Sequence[str | int], data: Any, *, missing: bool) -> tuple[str | int, ...]:
    """The part of pydantic's location that names keys of the data, without the union members it tried."""
    keys: list[str | int] = []
    for step in loc:
        in_list = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if in_list or (isinstance(data, dict) and step in data):
            data = data[step]
        elif not (missing and step == loc[-1]):
            continue
        keys.append(step)
    return tuple(keys)


def _problem(keys: Sequence[str | int], found: Sequence[Any], schema: type) -> str:
    path = _short(".".join(map(str, keys))) or "the config"
    first = found[0]
    value = first["input"]
    context = first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{path} is not a known key{nearest(str(keys[-1]), known_keys(schema, keys[:-1], first['loc']))}"
        case "missing":
            return f"{path} is missing"
        case "union_tag_invalid":
            allowed = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
            return f"{path}.kind is {context['tag']!r}{nearest(context['tag'], allowed)}"
        case "union_tag_not_found":
            return f"{path} needs a kind, or the kind's name alone in place of a mapping"
        case "value_error" if isinstance(value, dict):  # the validators' own sentences begin with the key
            return ".".join([*map(str, keys), str(context["error"])])
        case "value_error":
            return f"{path}: {context['error']}"
    allowed_values = ", or ".join(dict.fromkeys(_allowed(one["msg"]) for one in found))
    return f"{path} is {_brief(value)}; allowed: {allowed_values}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a number of {value.bit_length():,} bits"
    return _short(text)


def _allowed(message: str) -> str:
    for opening in ("Input should be ", "String should "):
        message = message.removeprefix(opening)
    return "a mapping of keys" if message == "an object" else message


def nearest(given: str, known: Iterable[str]) -> str:
    """``; did you mean …`` where something is close, and what is known in any case."""
    known = sorted(known)
    close = difflib.get_close_matches(given, known, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"{meant} (known: {', '.join(known)})" if known else meant


def known_keys(schema: Any, keys: Sequence[str | int], loc: Sequence[str | int]) -> list[str]:
    """The keys that the section at `keys` may hold; `loc` tells which member of a union was tried."""
    for key in keys:
        fields = _fields(schema)
        if key not in fields:
            return []
        members = _classes(fields[str(key)])
        schema = next((member for member in members if getattr(member, "kind", None) in loc), None) or members[0]
    return list(_fields(schema))


def _fields(schema: Any) -> dict[str, Any]:
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return {name: field.annotation for name, field in schema.model_fields.items()}
    hints = get_type_hints(schema, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def _classes(annotation: Any) -> list[type]:
    """The classes with fields that an annotation allows."""
    if get_origin(annotation) is Annotated:
        return _classes(get_args(annotation)[0])
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        return [annotation]
    return [found for member in get_args(annotation) for found in _classes(member)]
