"""Text to tokens and back: what every tokenizer is, and the one that needs nothing, which takes bytes for tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

Description = dict[str, str | None]
"""A tokenizer in plain values: `kind`, and whatever else decides which token is what."""

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
KINDS = ("bytes", "gpt2")


class Tokenizer(ABC):
    """Text to tokens and back; immutable. Tokens are ids from 0 to vocab_size - 1, of which one ends a document."""

    kind: ClassVar[str]
    vocab_size: ClassVar[int]
    end_of_text: ClassVar[int]

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        """The tokens (T,) of a text; what looks like a special token in it is text like any other."""

    @abstractmethod
    def spell(self, ids: ArrayLike) -> bytes:
        """What tokens (T,) stand for, in UTF-8; of ids that the vocabulary lacks, U+FFFD."""

    @abstractmethod
    def describe(self) -> Description:
        """Plain values from which `open_tokenizer` makes the tokenizer again."""

    def decode(self, ids: ArrayLike) -> str:
        """The text of tokens (T,), with U+FFFD for what is no UTF-8."""
        return self.spell(ids).decode("utf-8", errors="replace")

    def pieces(self, ids: ArrayLike) -> list[str]:
        r"""The text of each of the tokens (T,), for display: bytes that are no whole character appear as ``\xNN``."""
        return [self.spell([id_]).decode("utf-8", errors="backslashreplace") for id_ in np.asarray(ids).tolist()]


@dataclass(frozen=True)
class BytesTokenizer(Tokenizer):
    """The bytes of UTF-8, 0 to 255, and the end of text."""

    kind = "bytes"
    vocab_size = 257
    end_of_text = 256

    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)

    def spell(self, ids: ArrayLike) -> bytes:
        tokens = np.asarray(ids, dtype=np.int64)
        content = tokens.astype(np.uint8).tobytes()
        parts, start = [], 0
        for position in np.flatnonzero((tokens < 0) | (tokens > 255)).tolist():
            other = END_OF_TEXT if tokens[position] == self.end_of_text else UNKNOWN
            parts += [content[start:position], other.encode()]
            start = position + 1
        return b"".join([*parts, content[start:]])

    def describe(self) -> Description:
        return {"kind": self.kind}


def open_tokenizer(described: Description, vocabulary: Path | None = None) -> Tokenizer:
    """The tokenizer that `Tokenizer.describe` described; ``{"kind": ...}`` is enough for a new one.

    vocabulary: folder of gpt2's encoder.json and vocab.bpe; default: the one described, else tiktoken's own.

    Raises `DataError`: an unknown kind, tiktoken missing, no vocabulary to be had, or another than described.
    """
    kind = described.get("kind")
    if kind == "bytes":
        return BytesTokenizer()
    if kind == "gpt2":
        from .gpt2 import open_gpt2

        return open_gpt2(described, vocabulary)
    raise DataError(f"the tokenizer is {kind!r}; allowed: {', '.join(KINDS)}")


def check_same(described: Description, key: str, expected: Description, other: str) -> None:
    """Raise `DataError` unless two descriptions, of what `key` and `other` name, are of one tokenizer."""
    if identity(described) != identity(expected):
        raise DataError(
            f"{key} has the tokens of {_words(described)} and {other} those of {_words(expected)}, and they must be"
            " the same: write one of them again with `vmoe tokens --tokenizer`"
        )


def identity(described: Description) -> Description:
    """What decides which token is what: not where the vocabulary's files are."""
    return {name: value for name, value in described.items() if name != "vocabulary"}


def _words(described: Description) -> str:
    sha256 = described.get("sha256")
    return f"{described.get('kind')!r}" + (f" (SHA-256 {sha256[:12]}…)" if sha256 else "")
