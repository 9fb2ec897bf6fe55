"""The sidecar of a token file, which says what the file must be and what text it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..sidecar import parse_sidecar
from .tokenizer import Description

Natural = Annotated[int, Field(ge=0)]


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
    vocab_size: Annotated[int, Field(ge=1)]
    end_of_text: Natural
    tokenizer: Description
    documents: Natural
    text_bytes: Natural
    words: Natural
    source: str


def read_token_sidecar(path: Path) -> TokenSidecar | None:
    """The sidecar of the token file `path`; None if it has none. Raises `DataError`: unreadable, or not one."""
    return parse_sidecar(path, TokenSidecar, "a token file", "vmoe tokens")


def stored(dtype: str) -> np.dtype[np.unsignedinteger]:
    """How tokens of that type are stored: little-endian."""
    return np.dtype(dtype).newbyteorder("<")
