"""Opening token files, and what a run is told of those it cannot use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from token_files import TOKENS, config, write_ids

from vmoe.data import DataError, open_token_evaluation, open_token_loaders
from vmoe.data.sidecar import sidecar_path
from vmoe.data.tokens import gpt2_vocabulary


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_ids(tmp_path / "x.tokens", np.arange(TOKENS))


def nanogpt(path: Path, count: int = TOKENS) -> Path:
    """As nanoGPT's prepare.py writes it."""
    np.arange(count, dtype=np.uint16).tofile(path)
    return path


def test_a_file_of_nanogpt_has_gpt2s_tokens(tmp_path: Path) -> None:
    path = nanogpt(tmp_path / "train.bin")
    loaders = open_token_loaders(config(path), seed=0, batch_size=4)
    assert loaders.train.vocab_size == 50257
    assert loaders.train.tokenizer == gpt2_vocabulary.DESCRIPTION
    assert loaders.train.sidecar is None
    inputs, targets = next(loaders.val.epoch(0))
    assert inputs[0].tolist() == list(range(8))
    assert targets[0].tolist() == list(range(1, 9))
    described = gpt2_vocabulary.DESCRIPTION | {"vocabulary": "/elsewhere"}
    assert open_token_evaluation(config(path), tokenizer=described).tokens == TOKENS - 1


def test_a_loader_knows_its_text(path: Path) -> None:
    loader = open_token_evaluation(config(path), tokenizer={"kind": "bytes"})
    assert loader.sidecar is not None
    assert loader.sidecar.tokens == TOKENS
    assert (loader.vocab_size, loader.tokenizer) == (2**16, {"kind": "bytes"})


def test_tokens_of_four_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.tokens"
    write_ids(path, np.arange(TOKENS), dtype="uint32", bytes=4 * TOKENS, vocab_size=100_000)
    (np.arange(TOKENS) + 70_000).astype("<u4").tofile(path)
    inputs, _ = next(open_token_evaluation(config(path)).epoch(0))
    assert inputs[0].tolist() == list(range(70_000, 70_008))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"x\.tokens', which does not exist .*; allowed: a token file"),
        (lambda path: path.rename(path.with_name("y.tokens")), r"which does not exist \(nearest: '.*y\.tokens'\)"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), r"1,080 bytes where its sidecar says 1,082 \(541 tok"),
        (lambda path: sidecar_path(path).unlink(), r"which has no sidecar 'x\.tokens\.json'"),
        (lambda path: sidecar_path(path).write_text("{}"), "is no sidecar of a token file"),
        (lambda path: write_ids(path, np.arange(TOKENS), tokens=540), r"sidecar says 1,082 \(540 tokens of 2"),
        (lambda path: write_ids(path, np.arange(1)), "with 1 tokens; allowed: 2 or more"),
        (lambda path: write_ids(path, np.arange(0)), "with 0 tokens; allowed: 2 or more"),
    ],
)
def test_damage(path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(path)
    with pytest.raises(DataError, match=message) as error:
        open_token_evaluation(config(path))
    assert "x.tokens" in str(error.value)


@pytest.mark.parametrize("key", ["train", "val"])
def test_what_is_no_token_file(path: Path, tmp_path: Path, key: str) -> None:
    def attempt(other: Path) -> None:
        open_token_loaders(config(path, **{key: str(other)}), seed=0, batch_size=4)

    text = tmp_path / "text.txt"
    text.write_text("text")
    with pytest.raises(DataError, match=rf"data\.{key} is '.*text\.txt', which is no token file; `vmoe tokens '.*text"):
        attempt(text)
    with pytest.raises(DataError, match=rf"data\.{key} is '.*', a folder; allowed: a token file, which `vmoe tokens"):
        attempt(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"data\.{key} is '.*x\.tokns', which does not exist \(nearest: "):
        attempt(tmp_path / "x.tokns")
    (tmp_path / "odd.bin").write_bytes(b"123")
    with pytest.raises(DataError, match=rf"data\.{key} is '.*odd\.bin', which has 3 bytes, an odd number"):
        attempt(tmp_path / "odd.bin")


def test_tokens_of_another_tokenizer(path: Path, tmp_path: Path) -> None:
    other = str(nanogpt(tmp_path / "val.bin"))
    with pytest.raises(DataError, match=r"data\.val has the tokens of 'gpt2' .* and data\.train those of 'bytes'"):
        open_token_loaders(config(path, val=other), seed=0, batch_size=4)
    with pytest.raises(DataError, match=r"--data has the tokens of 'gpt2' .* and the model those of 'bytes'"):
        open_token_evaluation(config(path), other, tokenizer={"kind": "bytes"}, key="--data")
