"""Tokenizers: text there and back, and long texts in pieces."""

from __future__ import annotations

import io
import pickle
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmoe.data import DataError, Tokenizer, open_tokenizer
from vmoe.data.tokens import BytesTokenizer, gpt2_vocabulary
from vmoe.data.tokens.pieces import PIECE, WHITESPACE, read_pieces
from vmoe.data.tokens.tokenizer import check_same

SPACES = [chr(code) for code in range(0x3001) if re.match(f"[{WHITESPACE}]", chr(code))]
# Whitespace of Unicode's and what only looks like it, letters and marks of one to four bytes, contractions, quotes.
NASTY = [
    *SPACES,
    *"\x00\x1c\x1d\x1e\x1f\u180e\u200b\u200d\ufeff",
    *"aZ09é́ßΩж漢字١Ⅷ!?.'’\"_",
    "'s",
    "'ll",
    "'",
    "🙂",
    "👩‍🚀",
]
texts = st.one_of(st.lists(st.sampled_from(NASTY), max_size=60).map("".join), st.text())


@pytest.fixture(scope="session")
def vocabulary(shared_data: Path) -> Path:
    path = shared_data / "text" / "gpt2_bpe"
    if not path.is_dir():
        pytest.skip(f"no vocabulary at '{path}'")
    return path


@pytest.fixture(scope="session")
def gpt2(vocabulary: Path) -> Tokenizer:
    pytest.importorskip("tiktoken")
    return open_tokenizer({"kind": "gpt2"}, vocabulary)


def pieces(text: str, size: int) -> list[str]:
    """Decoded: no piece begins inside a character."""
    return [piece.decode() for piece in read_pieces(io.BytesIO(text.encode()), size)]


# --- pieces ----------------------------------------------------------------------------------------------


@given(texts, st.integers(1, 30))
def test_pieces_are_the_text_and_begin_where_whitespace_follows_something(text: str, size: int) -> None:
    found = pieces(text, size)
    assert "".join(found) == text
    for before, piece in pairwise(found):
        assert piece[0] in SPACES
        assert before[-1] not in SPACES
        assert len(before.encode()) >= size
    for piece in found:  # as short as may be
        places = [match.end() for match in re.finditer(f"[^{WHITESPACE}](?=[{WHITESPACE}])", piece)]
        assert all(len(piece[:place].encode()) < size for place in places)


@given(texts, st.integers(1, 30))
def test_the_pattern_cuts_pieces_as_it_cuts_the_whole(text: str, size: int) -> None:
    regex = pytest.importorskip("regex")
    pattern = regex.compile(gpt2_vocabulary.PATTERN.replace("$", r"\Z"))  # Rust's $ knows no newline before the end
    assert [part for piece in pieces(text, size) for part in pattern.findall(piece)] == pattern.findall(text)


@settings(deadline=None)
@given(texts, st.integers(1, 30))
def test_the_tokens_of_pieces_are_those_of_the_whole(gpt2: Tokenizer, text: str, size: int) -> None:
    parts = [gpt2.encode(piece) for piece in pieces(text, size)]
    assert np.concatenate([*parts, np.zeros(0, np.uint16)]).tolist() == gpt2.encode(text).tolist()


def test_whitespace_is_what_the_pattern_takes_for_it() -> None:
    regex = pytest.importorskip("regex")
    everything = "".join(map(chr, range(0x110000)))
    assert regex.findall(r"\p{White_Space}", everything) == regex.findall(r"\s", everything) == SPACES


def test_a_long_text_without_a_place_to_cut_is_one_piece() -> None:
    text = "漢" * PIECE
    assert pieces(text, PIECE) == [text]
    assert pieces("", PIECE) == []
    assert [len(piece) for piece in pieces(" a" * PIECE, PIECE)] == [PIECE, PIECE]


# --- there and back --------------------------------------------------------------------------------------


@given(texts)
def test_bytes_come_back(text: str) -> None:
    tokenizer = BytesTokenizer()
    tokens = tokenizer.encode(text)
    assert tokens.tolist() == list(text.encode())
    assert tokenizer.decode(tokens) == text
    assert tokenizer.spell(tokens) == text.encode()


@settings(deadline=None)
@given(texts)
def test_gpt2_comes_back(gpt2: Tokenizer, text: str) -> None:
    tokens = gpt2.encode(text)
    assert tokens.max(initial=0) < gpt2.end_of_text
    assert gpt2.decode(tokens) == text


def test_gpt2_is_tiktokens(gpt2: Tokenizer, vocabulary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tiktoken makes of the same files, and what it pins and does for the name 'gpt2'."""
    import tiktoken.load
    import tiktoken_ext.openai_public as public

    source = Path(public.__file__).read_text()
    assert all(sha256 in source for sha256 in gpt2_vocabulary.SHA256.values())
    assert public.r50k_pat_str == gpt2_vocabulary.PATTERN
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    theirs = tiktoken.load.data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(vocabulary / "vocab.bpe"), encoder_json_file=str(vocabulary / "encoder.json")
    )
    assert gpt2_vocabulary.ranks((vocabulary / "vocab.bpe").read_text(encoding="utf-8")) == theirs
    assert (len(theirs) + 1, gpt2.end_of_text) == (gpt2.vocab_size, len(theirs))
    assert gpt2.encode("Hello world").tolist() == [15496, 995]


def test_special_tokens_in_a_text_are_text(gpt2: Tokenizer) -> None:
    for tokenizer in (gpt2, BytesTokenizer()):
        tokens = tokenizer.encode("a<|endoftext|>b")
        assert tokenizer.end_of_text not in tokens
        assert tokenizer.decode([*tokens, tokenizer.end_of_text]) == "a<|endoftext|>b<|endoftext|>"


def test_pieces_for_display(gpt2: Tokenizer) -> None:
    assert BytesTokenizer().pieces(BytesTokenizer().encode("aé\n")) == ["a", r"\xc3", r"\xa9", "\n"]
    assert BytesTokenizer().pieces([256, 257, -1]) == ["<|endoftext|>", "�", "�"]
    assert BytesTokenizer().decode([104, 257, 105, 195]) == "h�i�"
    tokens = gpt2.encode(" token 𝄞 é")
    shown = gpt2.pieces(tokens)
    assert len(shown) == len(tokens)
    assert shown[0] == " token"
    assert r"\x" in "".join(shown)
    assert gpt2.pieces([gpt2.end_of_text, 50257]) == ["<|endoftext|>", "�"]
    assert gpt2.decode([15496, 50300, 995]) == "Hello� world"


@pytest.mark.parametrize("end", ["", "a", " a", "\na", "'s", "!"])
@pytest.mark.parametrize("space", [" ", "\n", " \n", "\u3000"])
def test_long_runs_of_whitespace(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch, space: str, end: str) -> None:
    import vmoe.data.tokens.gpt2 as module

    text = f"b{space * 70}c {end}{space * 300}{end}d{space * 250}{end}"
    expected = gpt2.encode(text)
    monkeypatch.setattr(module, "_LONG_RUN", 200)
    monkeypatch.setattr(module, "_LONG_RUNS", re.compile(f"(?<![{WHITESPACE}])[{WHITESPACE}]{{200,}}"))
    assert len(module._parts(text)) > 1
    assert gpt2.encode(text).tolist() == expected.tolist()


def test_a_million_spaces(gpt2: Tokenizer) -> None:
    text = "a" + " " * 1_200_000 + "b"
    assert gpt2.decode(gpt2.encode(text)) == text


# --- descriptions ----------------------------------------------------------------------------------------


def test_a_described_tokenizer_comes_back(gpt2: Tokenizer, vocabulary: Path) -> None:
    assert open_tokenizer(BytesTokenizer().describe()) == BytesTokenizer()
    described = gpt2.describe()
    assert described == {
        "kind": "gpt2",
        "sha256": gpt2_vocabulary.SHA256["vocab.bpe"],
        "vocabulary": str(vocabulary.resolve()),
    }
    for other in (open_tokenizer(described), pickle.loads(pickle.dumps(gpt2))):
        assert other.describe() == described
        assert other.encode("and so on").tolist() == gpt2.encode("and so on").tolist()


def test_the_vocabulary_is_found_where_tiktoken_keeps_it(
    vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its cache, under the digests of the addresses; and so is one whose described folder is gone."""
    import hashlib

    import tiktoken.registry

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    for name in gpt2_vocabulary.SHA256:
        address = f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}"
        shutil.copy(vocabulary / name, tmp_path / hashlib.sha1(address.encode()).hexdigest())
    described = gpt2_vocabulary.DESCRIPTION | {"vocabulary": str(tmp_path / "gone")}
    for found in (open_tokenizer({"kind": "gpt2"}), open_tokenizer(described)):
        assert found.describe() == gpt2_vocabulary.DESCRIPTION
        assert found.encode("Hello world").tolist() == [15496, 995]


def test_no_vocabulary_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    tiktoken = pytest.importorskip("tiktoken")

    def fail(name: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", fail)
    with pytest.raises(DataError, match=r"cannot be fetched \(ConnectionError: no network\); give a folder that holds"):
        open_tokenizer({"kind": "gpt2"})


def test_no_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(DataError, match=r"tiktoken cannot be imported .*: pip install 'vmoe\[lm\]'; or take"):
        open_tokenizer({"kind": "gpt2"})


def test_files_that_are_another_vocabularys(vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the vocabulary's file is '.*encoder\.json', which does not exist"):
        open_tokenizer({"kind": "gpt2"}, tmp_path)
    shutil.copyfile(vocabulary / "encoder.json", tmp_path / "encoder.json")
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\n")
    with pytest.raises(DataError, match=r"vocab\.bpe' has the SHA-256 .*, GPT-2's vocab\.bpe has 1ce16647"):
        open_tokenizer({"kind": "gpt2"}, tmp_path)


def test_descriptions_that_cannot_be_met() -> None:
    with pytest.raises(DataError, match="the tokenizer is 'wordpiece'; allowed: bytes, gpt2"):
        open_tokenizer({"kind": "wordpiece"})
    with pytest.raises(DataError, match="described with a vocabulary of SHA-256 123"):
        open_tokenizer({"kind": "gpt2", "sha256": "123"})


def test_tokenizers_are_the_same_wherever_their_files_are() -> None:
    check_same({"kind": "bytes"}, "a", {"kind": "bytes"}, "b")
    check_same(gpt2_vocabulary.DESCRIPTION, "a", gpt2_vocabulary.DESCRIPTION | {"vocabulary": "/x"}, "b")
    with pytest.raises(DataError, match=r"data\.val has the tokens of 'bytes' and data\.train those of 'gpt2' \(SHA"):
        check_same({"kind": "bytes"}, "data.val", gpt2_vocabulary.DESCRIPTION, "data.train")
