"""Pieces of text as people can see them, whatever they hold: what would be invisible or reorder text is spelled out."""

from __future__ import annotations

from vmoe.untrusted import printable, spelled_out

WHITESPACE = {" ": "␣", "\n": "↵", "\t": "⇥"}


def as_it_reads(piece: str) -> str:
    """For running text: newlines and tabs stay what they are."""
    return printable(piece)


def as_a_label(piece: str, longest: int = 60) -> str:
    """For a list: one line, whitespace by signs, cut where it is too long."""
    label = "".join(WHITESPACE.get(character) or spelled_out(character) for character in piece[:longest])
    return label + "…" * (len(piece) > longest)
