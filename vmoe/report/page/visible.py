"""Pieces of text as people can see them, whatever they hold: what would be invisible or reorder text is spelled out."""

from __future__ import annotations

import unicodedata

WHITESPACE = {" ": "␣", "\n": "↵", "\t": "⇥"}
JOINERS = "\u200c\u200d"  # they shape letters and emoji, and reorder nothing
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats such as bidi marks, lone surrogates, separators


def as_it_reads(piece: str) -> str:
    """For running text: newlines and tabs stay what they are."""
    return "".join(character if character in "\n\t" else _spelled_out(character) for character in piece)


def as_a_label(piece: str, longest: int = 60) -> str:
    """For a list: one line, whitespace by signs, cut where it is too long."""
    label = "".join(WHITESPACE.get(character) or _spelled_out(character) for character in piece[:longest])
    return label + "…" * (len(piece) > longest)


def _spelled_out(character: str) -> str:
    hidden = unicodedata.category(character) in HIDDEN and character not in JOINERS
    return f"⟨U+{ord(character):04X}⟩" if hidden else character
