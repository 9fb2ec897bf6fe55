"""Mutations of good files, as hypothesis strategies: of their bytes, and of the structure that their kind has."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import torch
from hostile_digest import digested
from hypothesis import strategies as st

NASTY = [
    *(None, True, -1, 0, 1, 2, 255, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, float("nan"), float("inf")),
    *("", "\x1b[31m", "<script>", "\u202e", "../../x", "x" * 5000, [], {}, [[]], [1] * 300, {"a": {"a": {}}}),
]
NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good file after one to four mutations."""
    content = draw(st.sampled_from(seeds))
    kinds = [mutated_bytes]
    if content[:2] == b"PK":
        kinds.append(mutated_member)
        kinds += [mutated_checkpoint] * 3 * (b"data.pkl" in content)
    elif content[:1] in b"{[" and content[:1]:
        kinds.append(mutated_json)
        kinds.append(mutated_json)
    for _ in range(draw(st.integers(1, 4))):
        content = draw(draw(st.sampled_from(kinds))(content))
    return content


@st.composite
def mutated_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes are flipped, taken away, put in, repeated, or made a number that is often forgotten."""
    size = len(content)
    near_end = draw(st.booleans())  # where archives keep their tables
    place = draw(st.integers(max(0, size - 400) if near_end else 0, size))
    length = draw(st.sampled_from([1, 1, 2, 4, 8, 64, size // 3 + 1]))
    match draw(st.integers(0, 5)):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + content[place + length :]
        case 2:
            return content[:place] + draw(st.binary(max_size=16)) + content[place:]
        case 3:
            return content[:place] + content[place : place + length] * 2 + content[place + length :]
        case 4:
            width = draw(st.sampled_from([1, 2, 4, 8]))
            number = draw(st.sampled_from(NUMBERS)) & (2 ** (8 * width) - 1)
            return content[:place] + number.to_bytes(width, "little") + content[place + width :]
    return content[:place] + draw(st.binary(min_size=1, max_size=4)) + content[place + 1 :]


@st.composite
def mutated_json(draw: st.DrawFn, content: bytes) -> bytes:
    """One value anywhere in JSON, or in a line of JSON, is another, missing, or twice there."""
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    number = draw(st.integers(0, len(lines) - 1))
    try:
        value = json.loads(lines[number])
    except (ValueError, RecursionError):
        return draw(mutated_bytes(content))
    lines[number] = json.dumps(draw(changed(value))).encode()
    return b"\n".join(lines)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(NASTY))
    if isinstance(value, list):
        place = draw(st.integers(0, len(value) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                return value[:place] + value[place + 1 :]
            case 1:
                return value[: place + 1] + value[place:]
        return [*value[:place], draw(changed(value[place])), *value[place + 1 :]]
    key = draw(st.sampled_from(sorted(value, key=repr)))
    match draw(st.integers(0, 5)):
        case 0:
            return {name: inner for name, inner in value.items() if name != key}
        case 1:
            return {**value, draw(st.sampled_from(["", "x", "<b>", "\x1b"])): value[key]}
    return {**value, key: draw(changed(value[key]))}


@st.composite
def mutated_checkpoint(draw: st.DrawFn, content: bytes) -> bytes:
    """One value anywhere in a checkpoint is another, missing, or twice there; its digest is right."""
    try:
        checkpoint = torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # an earlier mutation has made it none
        return draw(mutated_bytes(content))
    checkpoint = draw(changed(checkpoint))
    stream = io.BytesIO()
    torch.save(digested(checkpoint) if isinstance(checkpoint, dict) else checkpoint, stream)
    return stream.getvalue()


@st.composite
def mutated_member(draw: st.DrawFn, content: bytes) -> bytes:
    """One member of a zip file is mutated, missing, or under another's name."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {one.filename: archive.read(one) for one in archive.infolist() if one.file_size < 2**24}
    except Exception:  # an earlier mutation has made it none
        return draw(mutated_bytes(content))
    if not members:
        return content
    name = draw(st.sampled_from(sorted(members)))
    match draw(st.integers(0, 5)):
        case 0:
            del members[name]
        case 1:
            members[name] = members[draw(st.sampled_from(sorted(members)))]
        case _:
            members[name] = draw(mutated_bytes(members[name]))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for one, data in members.items():
            archive.writestr(one, data)
    return stream.getvalue()
