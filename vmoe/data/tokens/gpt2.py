"""GPT-2's tokenizer, which is tiktoken's, from files of the user's or from what tiktoken itself finds."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmoe.untrusted import read_file

from ..errors import DataError, missing, missing_package
from . import gpt2_vocabulary
from .pieces import WHITESPACE
from .tokenizer import END_OF_TEXT, UNKNOWN, Description, Tokenizer

if TYPE_CHECKING:
    from tiktoken import Encoding

LARGEST_FILE = 2**24  # bytes; the two files have 1.5 million together
_LONG_RUN = 100_000  # characters; tiktoken fails at a million
_LONG_RUNS = re.compile(rf"(?<![{WHITESPACE}])[{WHITESPACE}]{{{_LONG_RUN},}}")
_PROBE = 64  # a long run holds such a piece at each half of its length
_FILES = " and ".join(gpt2_vocabulary.SHA256)


@dataclass(frozen=True, eq=False)
class Gpt2Tokenizer(Tokenizer):
    """GPT-2's byte pairs and the end of text. vocabulary: the folder its files came from; None: tiktoken's own."""

    encoding: Encoding
    vocabulary: Path | None

    kind = "gpt2"
    vocab_size = gpt2_vocabulary.VOCAB_SIZE
    end_of_text = gpt2_vocabulary.END_OF_TEXT_ID

    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        return np.concatenate([np.array(self.encoding.encode_ordinary(part), np.uint16) for part in _parts(text)])

    def spell(self, ids: ArrayLike) -> bytes:
        tokens = np.asarray(ids, dtype=np.int64)
        if ((tokens >= 0) & (tokens < self.vocab_size)).all():
            return self.encoding.decode_bytes(tokens.tolist())
        return b"".join(map(self._spell_one, tokens.tolist()))

    def describe(self) -> Description:
        return gpt2_vocabulary.DESCRIPTION | {"vocabulary": str(self.vocabulary) if self.vocabulary else None}

    def _spell_one(self, token: int) -> bytes:
        return self.encoding.decode_bytes([token]) if 0 <= token < self.vocab_size else UNKNOWN.encode()


def _parts(text: str) -> list[str]:
    """The text itself, unless it has runs of whitespace so long that tiktoken's matching of them would fail.

    The pattern takes such a run as one part but for its last character, where something follows it: there the text
    may be cut.
    """
    if not any(text[start : start + _PROBE].isspace() for start in range(0, len(text), _LONG_RUN // 2)):
        return [text]
    parts, start = [], 0
    for run in _LONG_RUNS.finditer(text):
        if run.end() < len(text):
            parts += [text[start : run.start()], text[run.start() : run.end() - 1]]
            start = run.end() - 1
    return [*parts, text[start:]]


def open_gpt2(described: Description, vocabulary: Path | None = None) -> Gpt2Tokenizer:
    """See `open_tokenizer`. A folder that was described and is not there any more is passed over for tiktoken's own."""
    expected = described.get("sha256") or gpt2_vocabulary.DESCRIPTION["sha256"]
    if expected != gpt2_vocabulary.DESCRIPTION["sha256"]:
        raise DataError(
            f"the tokenizer 'gpt2' is described with a vocabulary of SHA-256 {expected}; allowed:"
            f" {gpt2_vocabulary.DESCRIPTION['sha256']}, GPT-2's vocab.bpe"
        )
    folder = described.get("vocabulary")
    if vocabulary is None and folder is not None and Path(folder).is_dir():
        vocabulary = Path(folder)
    try:
        import tiktoken
    except ImportError as error:
        raise missing_package(
            "the tokenizer is 'gpt2'", error, "; or take the tokenizer bytes", name="tiktoken", install="vmoe[lm]"
        ) from error
    if vocabulary is not None:
        encoding = tiktoken.Encoding(
            "gpt2",
            pat_str=gpt2_vocabulary.PATTERN,
            mergeable_ranks=gpt2_vocabulary.ranks(_read(vocabulary)["vocab.bpe"].decode()),
            special_tokens={END_OF_TEXT: gpt2_vocabulary.END_OF_TEXT_ID},
            explicit_n_vocab=gpt2_vocabulary.VOCAB_SIZE,
        )
        return Gpt2Tokenizer(encoding, vocabulary.resolve())
    try:
        return Gpt2Tokenizer(tiktoken.get_encoding("gpt2"), None)
    except (ImportError, OSError, ValueError) as error:  # requests' errors are OSErrors
        raise DataError(
            f"the vocabulary of 'gpt2' is not in tiktoken's cache (TIKTOKEN_CACHE_DIR) and cannot be fetched"
            f" ({type(error).__name__}: {error}); give a folder that holds {_FILES} (`--vocabulary`), or take the"
            " tokenizer bytes"
        ) from error


def _read(folder: Path) -> dict[str, bytes]:
    """The files of the vocabulary. Raises `DataError`: one is missing, or is not GPT-2's."""
    contents = {}
    for name, sha256 in gpt2_vocabulary.SHA256.items():
        path = folder / name
        if not path.is_file():
            raise missing("the vocabulary's file", path, f"a folder that holds {_FILES} of GPT-2")
        contents[name] = read_file(path, LARGEST_FILE)
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != sha256:
            raise DataError(
                f"'{path}' has the SHA-256 {found}, GPT-2's {name} has {sha256}: it is damaged, or another"
                " vocabulary's; copy it again"
            )
    return contents
