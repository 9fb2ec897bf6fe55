"""A token file: raw little-endian integers, mapped into memory and believed only as far as they were checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmoe.untrusted import open_file

from ..errors import DataError, missing
from ..sidecar import sidecar_path
from .gpt2_vocabulary import DESCRIPTION as GPT2
from .gpt2_vocabulary import VOCAB_SIZE as GPT2_VOCAB_SIZE
from .sidecar import TokenSidecar, read_token_sidecar, stored
from .tokenizer import Description

TOKENS = ".tokens"
NANOGPT = ".bin"


@dataclass(frozen=True, eq=False)
class TokenFile:
    """tokens (T,): a memory map. sidecar: None for a file of nanoGPT's."""

    path: Path
    tokens: NDArray[np.unsignedinteger]
    vocab_size: int
    tokenizer: Description
    sidecar: TokenSidecar | None

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Copies (B, length) of the tokens from each of the starts (B,) on.

        Raises `DataError`: a token that the vocabulary lacks, on which an embedding would fail in the device.
        """
        rows = np.empty((len(starts), length), np.int64)
        for row, start in zip(rows, starts.tolist(), strict=True):
            row[:] = self.tokens[start : start + length]
        if rows.max(initial=0) >= self.vocab_size:
            row, column = np.argwhere(rows >= self.vocab_size)[0]
            raise DataError(
                f"'{self.path}' has token {rows[row, column]} at position {starts[row] + column:,}; allowed: 0 to"
                f" {self.vocab_size - 1}, its vocabulary; the file is damaged, or was made by another tokenizer"
            )
        return rows


def open_tokens(path: Path, key: str) -> TokenFile:
    """Map a token file, its size compared with its sidecar; `.bin` without one is of nanoGPT and GPT-2's tokens.

    key: what the path is called in errors. Raises `DataError`: not there, no token file, no sidecar, another size,
    fewer than two tokens. Tokens are checked when they are read.
    """
    name = f"{key} is '{path}'"
    if not path.exists():
        raise missing(key, path, "a token file (`vmoe tokens` writes one), or python")
    if path.is_dir():
        raise DataError(f"{name}, a folder; allowed: a token file, which `vmoe tokens '{path}' X.tokens` makes of text")
    try:
        with open_file(path) as file:
            size = file.seek(0, 2)
    except OSError as error:
        raise DataError(f"{name}, which cannot be read: {error.strerror or error}") from error
    sidecar = read_token_sidecar(path)
    if sidecar is None and path.suffix != NANOGPT:
        if path.suffix == TOKENS:
            raise DataError(
                f"{name}, which has no sidecar '{sidecar_path(path).name}' to say what its tokens are: copy both, or"
                " write it again with `vmoe tokens`"
            )
        raise DataError(f"{name}, which is no token file; `vmoe tokens '{path}' X.tokens` makes one of text")
    dtype = stored(sidecar.dtype if sidecar else "uint16")
    if sidecar and (size != sidecar.bytes or size != sidecar.tokens * dtype.itemsize):
        raise DataError(
            f"{name}, which has {size:,} bytes where its sidecar says {sidecar.bytes:,} ({sidecar.tokens:,} tokens of"
            f" {dtype.itemsize} bytes); it was cut short or exchanged: copy or write it again, with its sidecar"
        )
    if size % dtype.itemsize:
        raise DataError(f"{name}, which has {size:,} bytes, an odd number, where every token takes two: it is damaged")
    if size < 2 * dtype.itemsize:
        raise DataError(f"{name}, with {size // dtype.itemsize} tokens; allowed: 2 or more, for one to follow another")
    tokens = np.memmap(path, dtype, mode="r")
    if sidecar is None:
        return TokenFile(path, tokens, GPT2_VOCAB_SIZE, GPT2, None)
    return TokenFile(path, tokens, sidecar.vocab_size, sidecar.tokenizer, sidecar)
