"""A token file as it is being written: what goes in is counted, and read back at the end."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..sidecar import digest
from .sidecar import TokenSidecar, stored
from .tokenizer import Tokenizer

_CHUNK = 1 << 22  # tokens read back at a time


class Encoded(NamedTuple):
    """tokens (T,) of some text, with an end of text behind each of the documents that end in it."""

    tokens: NDArray[np.unsignedinteger]
    documents: int
    text_bytes: int
    words: int


def encode(tokenizer: Tokenizer, text: str, *, ends: bool, name: str) -> Encoded:
    """Encode a document, or a part of one, and decode it again. ends: the document does. name: of it, in errors.

    Raises `DataError`: what was decoded is not the text.
    """
    tokens = tokenizer.encode(text)
    content = text.encode()
    if tokenizer.spell(tokens) != content:
        raise DataError(f"{name} does not come back from its {tokenizer.kind} tokens: a fault of the tokenizer")
    if ends:
        tokens = np.append(tokens, tokens.dtype.type(tokenizer.end_of_text))
    return Encoded(tokens, int(ends), len(content), len(text.split()))


def join(encoded: list[Encoded]) -> Encoded:
    """One after another; at least one."""
    tokens, documents, text_bytes, words = zip(*encoded, strict=True)
    return Encoded(np.concatenate(tokens), sum(documents), sum(text_bytes), sum(words))


class TokenWriter:
    """Writes tokens to `path` as they come, and keeps the books for the sidecar."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
        self._path = path
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._tokens = self._largest = self.documents = self._text_bytes = self._words = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, encoded: Encoded) -> None:
        """Append tokens."""
        content = encoded.tokens.astype(stored(self._dtype)).tobytes()
        self._file.write(content)
        self._digest.update(content)
        self._tokens += len(encoded.tokens)
        self._largest = max(self._largest, int(encoded.tokens.max(initial=0)))
        self.documents += encoded.documents
        self._text_bytes += encoded.text_bytes
        self._words += encoded.words

    def finish(self, source: str) -> TokenSidecar:
        """Close the file, read it back and return its sidecar; source: what was encoded.

        Raises `DataError`: the file is not what was written.
        """
        self._file.close()
        tokens, largest = _read_back(self._path, stored(self._dtype))
        sha256 = digest(self._path)
        if (tokens, largest, sha256) != (self._tokens, self._largest, self._digest.hexdigest()):
            raise DataError(
                f"'{self._path}' was read back with {tokens:,} tokens up to {largest} where {self._tokens:,} up to"
                f" {self._largest} were written, or others among them: is its disk sound?"
            )
        if largest >= self._tokenizer.vocab_size:
            raise DataError(f"{source} gave token {largest}; allowed: 0 to {self._tokenizer.vocab_size - 1}")
        return TokenSidecar(
            tokens=tokens,
            dtype=self._dtype,
            bytes=self._path.stat().st_size,
            sha256=sha256,
            vocab_size=self._tokenizer.vocab_size,
            end_of_text=self._tokenizer.end_of_text,
            tokenizer=self._tokenizer.describe(),
            documents=self.documents,
            text_bytes=self._text_bytes,
            words=self._words,
            source=source,
        )


def _read_back(path: Path, dtype: np.dtype[np.unsignedinteger]) -> tuple[int, int]:
    """How many tokens a file has, and the largest."""
    count = largest = 0
    with path.open("rb") as file:
        while content := file.read(_CHUNK * dtype.itemsize):
            tokens = np.frombuffer(content, dtype)
            count += len(tokens)
            largest = max(largest, int(tokens.max()))
    return count, largest
