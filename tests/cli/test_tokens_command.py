"""`vmoe tokens` and `vmoe verify`, as the shell calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import vmoe


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for index in range(20):
        path = tmp_path / "text" / f"{index}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"document {index}\n")
    return tmp_path


BYTES = ("--tokenizer", "bytes", "--workers", "1")


def test_text_is_written_and_verified(inside: Path) -> None:
    outcome = vmoe("tokens", "text", "x.tokens", *BYTES, "--pattern", "*.md")
    assert outcome.status == 0, outcome.err
    size = sum(path.stat().st_size for path in (inside / "text").iterdir())
    assert outcome.out == f"x.tokens: {size + 20:,} tokens of 20 documents, {size:,} bytes of text\n"
    assert vmoe("verify", "x.tokens").out == f"x.tokens: {size + 20:,} tokens of 20 documents, as written\n"
    content = bytearray(Path("x.tokens").read_bytes())
    content[0] ^= 1
    Path("x.tokens").write_bytes(content)
    outcome = vmoe("verify", "x.tokens")
    assert outcome.status == 2
    assert "SHA-256" in outcome.err


def test_a_share_goes_to_a_second_file() -> None:
    arguments = ("tokens", "text", "train.tokens", "--pattern", "*.md", *BYTES, "--val", "val.tokens")
    outcome = vmoe(*arguments, "--val-share", "0.3")
    assert outcome.status == 0, outcome.err
    counts = [int(line.split(" tokens of ")[1].split()[0]) for line in outcome.out.splitlines()]
    assert sum(counts) == 20
    assert [line.split(":")[0] for line in outcome.out.splitlines()] == ["train.tokens", "val.tokens"]
    assert vmoe(*arguments).status == 2  # they exist
    assert "overwritten" in vmoe(*arguments).err
    assert vmoe(*arguments, "--val-share", "0.3", "--overwrite").out == outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text", "x.tokens", *BYTES], r"the source 'text' holds no files whose names match '*.txt'"),
        (["text", "x.bin", *BYTES], "a name that ends in .tokens"),
        (["txet", "x.tokens", *BYTES], "(nearest: 'text')"),
        (["text", "x.tokens", *BYTES, "--val-share", "0.1"], "--val-share needs --val"),
        (["text", "x.tokens", *BYTES, "--vocabulary", "text"], "--vocabulary is of gpt2; --tokenizer is bytes"),
        (["text", "x.tokens", "--vocabulary", "text"], "encoder.json', which does not exist"),
        (["x.tokens"], "required: "),
    ],
)
def test_what_cannot_be_asked(inside: Path, arguments: list[str], message: str) -> None:
    outcome = vmoe("tokens", *arguments)
    assert outcome.status == 2
    assert message in outcome.err
    assert sorted(path.name for path in inside.iterdir()) == ["text"]
