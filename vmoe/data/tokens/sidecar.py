"""The sidecar of a token file, which says what the file must be and what text it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..sidecar import parse_sidecar
from .tokenizer import Description

Natural = Annotated[int, Field(ge=0, lt=2**63)]


class TokenSidecar(BaseModel):
    """`X.tokens.json`, beside X.tokens.

    tokens: how many, ends of documents among them. end_of_text: the token that ends each of the documents.
    tokenizer: its `describe`. text_bytes, words: of the documents' text, in UTF-8, and as whitespace separates them.
    source: what was encoded.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["vmoe.tokens/1"] = "vmoe.tokens/1"
    tokens: Natural
    dtype: Literal["uint16", "uint32"]
    bytes: Natural
    sha256: str
    vocab_size: Annotated[int, Field(ge=1, le=2**32)]
    end_of_text: Natural
    tokenizer: Description
    documents: Natural
    text_bytes: Annotated[int, Field(ge=1, lt=2**63)]
    words: Natural
    source: str

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.end_of_text >= self.vocab_size:
            raise ValueError(f"end_of_text is {self.end_of_text}; allowed: less than vocab_size, {self.vocab_size}")
        if self.words > self.text_bytes:
            raise ValueError(f"words is {self.words}; allowed: at most text_bytes, {self.text_bytes}")
        return self


def read_token_sidecar(path: Path) -> TokenSidecar | None:
    """The sidecar of the token file `path`; None if it has none. Raises `DataError`: unreadable, or not one."""
    return parse_sidecar(path, TokenSidecar, "a token file", "vmoe tokens")


def stored(dtype: str) -> np.dtype[np.unsignedinteger]:
    """How tokens of that type are stored: little-endian."""
    return np.dtype(dtype).newbyteorder("<")
