"""The embedded text: the standard library, as bytes, in two parts that never mix."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from token_files import config

from vmoe.data import DataError
from vmoe.data.tokens import BytesTokenizer, open_token_evaluation, open_token_loaders, python_sources
from vmoe.data.tokens.file import open_tokens
from vmoe.data.tokens.sidecar import read_token_sidecar

LEAST = 100_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "python"
    python_sources.materialise(folder)
    return folder


def test_both_parts_are_the_library_module_by_module(folder: Path) -> None:
    sources = python_sources.read_sources(python_sources.library())
    assert {"argparse.py", "asyncio/events.py", "json/decoder.py"} <= set(sources)
    assert not any(part in name.split("/") for name in sources for part in ("test", "tests", "site-packages"))
    parts = python_sources.split(sources)
    assert sorted(parts.train + parts.val) == list(sources)
    tokenizer = BytesTokenizer()
    for name, modules in parts._asdict().items():
        tokens = open_tokens(folder / f"{name}.tokens", name).tokens
        ends = int((tokens == tokenizer.end_of_text).sum())
        assert ends == len(modules)
        text = "".join(sources[module] + "<|endoftext|>" for module in modules)
        assert hash(tokenizer.decode(tokens)) == hash(text)  # a difference of megabytes is no message
        sidecar = read_token_sidecar(folder / f"{name}.tokens")
        assert sidecar is not None
        assert sidecar.documents == len(modules)
        assert sidecar.text_bytes == len(tokens) - ends
        assert sidecar.words == sum(len(sources[module].split()) for module in modules)


def test_one_per_cent_is_for_validation_and_no_less_than_it_takes() -> None:
    sources = {f"{index}.py": "x" * 1000 for index in range(1000)}
    assert len(python_sources.split(sources).val) == LEAST // 1000
    large = {f"{index}.py": "x" * 1000 for index in range(20_000)}
    assert len(python_sources.split(large).val) == 200
    # Who is in it follows from names alone: another module, or a change in one, moves hardly any other.
    more = python_sources.split(large | {"new.py": "y" * 500})
    assert len(set(more.val) ^ set(python_sources.split(large).val)) <= 2


def test_what_is_no_utf_8_or_no_module_is_left_out(tmp_path: Path) -> None:
    for name, content in {
        "b.py": b"b = 1\n",
        "a/c.py": "c = 'é'\n".encode(),
        "latin.py": "# -*- coding: latin-1 -*- é".encode("latin-1"),
        "empty.py": b"",
        "notes.txt": b"text",
        "test/d.py": b"d = 1\n",
        "a/site-packages/e.py": b"e = 1\n",
        "_sysconfigdata__linux_.py": b"f = 1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert python_sources.read_sources(tmp_path) == {"a/c.py": "c = 'é'\n", "b.py": "b = 1\n"}


def test_written_once_and_mended(tmp_path: Path) -> None:
    train, val = python_sources.materialise(tmp_path)
    stamps = [path.stat().st_mtime_ns for path in (train, val)]
    assert python_sources.materialise(tmp_path) == (train, val)
    assert [path.stat().st_mtime_ns for path in (train, val)] == stamps
    content = val.read_bytes()
    val.write_bytes(content[: len(content) // 2])
    python_sources.materialise(tmp_path)
    assert val.read_bytes() == content
    assert train.stat().st_mtime_ns == stamps[0]


def test_processes_that_ask_at_once_get_the_same(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        paths = list(pool.map(python_sources.materialise, [tmp_path] * 4))
    assert len(set(paths)) == 1
    written = {"train.tokens", "train.tokens.json", "val.tokens", "val.tokens.json", ".lock"}
    assert set(os.listdir(tmp_path)) == written


def test_a_run_reads_it_by_its_name(folder: Path) -> None:
    data = config("python", cache=folder.parent, block_size=128)
    loaders = open_token_loaders(data, seed=0, batch_size=16)
    assert loaders.train.tokenizer == loaders.val.tokenizer == {"kind": "bytes"}
    assert loaders.train.vocab_size == 257
    assert loaders.val.tokens >= LEAST
    assert loaders.train.tokens > loaders.val.tokens
    assert open_token_evaluation(data).tokens == loaders.val.tokens
    assert open_token_evaluation(data, "python", key="--data").tokens == loaders.val.tokens


def test_a_python_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_sources, "library", lambda: tmp_path / "nothing")
    with pytest.raises(DataError, match="has 0 modules"):
        python_sources.materialise(tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == [".lock"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="the sources of Python cannot be written into"):
        python_sources.materialise(tmp_path / "file" / "python")
