"""Text to token files: the same bytes whoever writes them, and nothing at all when something is wrong."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vmoe.config.schema import PYTHON
from vmoe.data import DataError, Tokenizer, open_tokenizer, verify_tokens, write_tokens
from vmoe.data.sidecar import sidecar_path
from vmoe.data.tokens import BytesTokenizer, TokenSidecar, documents, encode, pieces, python_sources, write, writer
from vmoe.data.tokens.file import open_tokens

BYTES = BytesTokenizer()
END = "<|endoftext|>"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a hundred bytes: a few kilobytes of text keep several processes busy."""
    monkeypatch.setattr(pieces.read_pieces, "__defaults__", (100,))
    monkeypatch.setattr(encode, "PIECE", 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty documents of up to two kilobytes, some of them empty, in folders."""
    words = ["word", "é", "漢字", "\n", "  ", "\t", "it's", "1,234", END, "\u3000", "🙂"]
    generator = np.random.default_rng(0)
    for index in range(40):
        path = tmp_path / "text" / f"{index % 3}" / f"{index}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        chosen = generator.choice(words, index * 10 if index % 7 else 0)
        path.write_text(" ".join(chosen), encoding="utf-8", newline="")
    (tmp_path / "text" / "notes.md").write_text("other")
    return tmp_path / "text"


def texts(folder: Path) -> list[str]:
    """What is to be encoded, in order."""
    found = [path.read_bytes().decode() for path in sorted(folder.rglob("*.txt"), key=lambda path: path.as_posix())]
    return [text for text in found if text]


def content(path: Path) -> NDArray[np.unsignedinteger]:
    return open_tokens(path, "it").tokens


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_its_documents_one_after_another(folder: Path, tmp_path: Path) -> None:
    (found,) = write_tokens([folder], tmp_path / "out" / "x.tokens", BYTES, workers=2, progress=False)
    expected = texts(folder)
    assert found.path == tmp_path / "out" / "x.tokens"
    tokens = content(found.path)
    ends = np.flatnonzero(tokens == BYTES.end_of_text)
    parts = np.split(tokens, ends + 1)
    assert [BYTES.decode(part[:-1]) for part in parts[:-1]] == expected
    assert len(parts[-1]) == 0
    raw = found.path.read_bytes()
    assert found.sidecar == TokenSidecar(
        tokens=len(tokens),
        dtype="uint16",
        bytes=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        vocab_size=257,
        end_of_text=256,
        tokenizer={"kind": "bytes"},
        documents=len(expected),
        text_bytes=sum(len(text.encode()) for text in expected),
        words=sum(len(text.split()) for text in expected),
        source=str(folder),
    )
    assert verify_tokens(found.path) == found.sidecar
    assert written(tmp_path / "out") == {"x.tokens", "x.tokens.json"}


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_processes_changes_nothing(folder: Path, tmp_path: Path, workers: int) -> None:
    for number in (1, workers):
        targets = {"target": tmp_path / f"{number}.tokens", "val": tmp_path / f"{number}-val.tokens"}
        write_tokens([folder / "1", folder], **targets, tokenizer=BYTES, val_share=0.3, workers=number, progress=False)
    for name in (".tokens", "-val.tokens", ".tokens.json", "-val.tokens.json"):
        assert (tmp_path / f"1{name}").read_bytes() == (tmp_path / f"{workers}{name}").read_bytes()


def test_a_file_named_twice_is_taken_once(folder: Path, tmp_path: Path) -> None:
    file = folder / "1" / "1.txt"
    sources = [file, folder, file]
    (found,) = write_tokens(sources, tmp_path / "x.tokens", BYTES, workers=1, progress=False)
    assert found.sidecar.documents == len(texts(folder))
    assert BYTES.decode(content(found.path)).startswith(file.read_text(encoding="utf-8") + END)
    assert found.sidecar.source == f"{file}, {folder}"


def test_documents_go_to_one_of_two_files_by_what_they_say(folder: Path, tmp_path: Path) -> None:
    def split(source: Path, share: float) -> list[list[str]]:
        targets = [tmp_path / "train.tokens", tmp_path / "val.tokens"]
        results = write_tokens(
            [source], targets[0], BYTES, val=targets[1], val_share=share, workers=2, overwrite=True, progress=False
        )
        assert [one.path for one in results] == targets
        ends = (np.split(t, np.flatnonzero(t == 256) + 1)[:-1] for t in map(content, targets))
        return [[BYTES.decode(tokens[:-1]) for tokens in part] for part in ends]

    train, val = split(folder, 0.3)
    assert sorted(train + val) == sorted(texts(folder))
    assert not set(train) & set(val)
    assert 2 <= len(val) <= 20
    more = split(folder, 0.6)[1]
    assert set(val) < set(more)
    for index, path in enumerate(sorted(folder.rglob("*.txt"), reverse=True)):
        path.rename(folder / f"{index:02}.txt")
    assert [sorted(part) for part in split(folder, 0.3)] == [sorted(train), sorted(val)]


def test_patterns_and_the_sources_of_python(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = write_tokens([folder], tmp_path / "x.tokens", BYTES, pattern="*.md", workers=1, progress=False)
    assert BYTES.decode(content(found.path)) == f"other{END}"
    library = tmp_path / "library"
    library.mkdir()
    (library / "b.py").write_text("b = 1\n")
    (library / "a.py").write_text("a = 1\n")
    for module in (documents, python_sources):
        monkeypatch.setattr(module, "library", lambda: library)
    (found,) = write_tokens([PYTHON], tmp_path / "y.tokens", BYTES, workers=1, progress=False)
    assert BYTES.decode(content(found.path)) == f"a = 1\n{END}b = 1\n{END}"


def test_wikitext_is_tiktokens(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real text, in a hundred pieces or in one."""
    text, vocabulary = shared_data / "text" / "wikitext-2" / "valid.txt", shared_data / "text" / "gpt2_bpe"
    if not (text.is_file() and vocabulary.is_dir()):
        pytest.skip(f"no '{text}' or '{vocabulary}'")
    pytest.importorskip("tiktoken")
    monkeypatch.setattr(pieces.read_pieces, "__defaults__", (10_000,))
    tokenizer = open_tokenizer({"kind": "gpt2"}, vocabulary)
    (found,) = write_tokens([text], tmp_path / "x.tokens", tokenizer, workers=2, progress=False)
    whole = text.read_bytes().decode()
    expected = [*tokenizer.encode(whole).tolist(), tokenizer.end_of_text]
    assert content(found.path).tolist() == expected
    assert found.sidecar.words == len(whole.split())
    assert found.sidecar.text_bytes == text.stat().st_size
    assert found.sidecar.tokenizer["vocabulary"] == str(vocabulary.resolve())


# --- data sets of the hub --------------------------------------------------------------------------------


class Rows:
    """What `datasets.load_dataset` returns, as far as it is used."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns = columns
        self.column_names = list(columns)

    def iter(self, batch_size: int) -> Iterator[dict[str, list[Any]]]:
        length = len(next(iter(self.columns.values())))
        for start in range(0, length, batch_size):
            yield {name: values[start : start + batch_size] for name, values in self.columns.items()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stands for the library; holds what was asked of it."""
    asked: list[tuple[Any, ...]] = []
    rows = [f"row {index} {'漢 ' * (index % 50)}" for index in range(250)]

    def load_dataset(name: str, configuration: str | None, *, split: str) -> Rows:
        asked.append((name, configuration, split))
        if split != "train":
            raise ValueError(f"Unknown split {split}")
        return Rows(text=[*rows, ""], content=rows, numbers=[*range(250)])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_every_row_is_a_document(hub: list[tuple[Any, ...]], folder: Path, tmp_path: Path) -> None:
    sources = ["hf:some/text:small", folder]
    found, val = write_tokens(
        sources, tmp_path / "x.tokens", BYTES, val=tmp_path / "val.tokens", val_share=0.2, workers=2, progress=False
    )
    assert hub == [("some/text", "small", "train")]
    assert found.sidecar.documents + val.sidecar.documents == 250 + len(texts(folder))
    assert 20 < val.sidecar.documents < 100
    train_text, val_text = (BYTES.decode(content(one.path)) for one in (found, val))
    assert all((f"row {index} " in train_text) != (f"row {index} " in val_text) for index in range(250))


def test_rows_that_are_none(hub: list[tuple[Any, ...]], tmp_path: Path) -> None:
    def attempt(source: str = "hf:x", **options: str) -> None:
        write_tokens([source], tmp_path / "x.tokens", BYTES, workers=1, progress=False, **options)

    with pytest.raises(DataError, match=r"'hf:x' has no column 'body'; allowed: text, content, numbers"):
        attempt(column="body")
    with pytest.raises(DataError, match=r"row 0 of 'hf:x' has int in 'numbers', not text"):
        attempt(column="numbers")
    with pytest.raises(DataError, match=r"'hf:x' with split 'tset' cannot be loaded \(ValueError: Unknown split"):
        attempt(split="tset")
    assert written(tmp_path) == set()


def test_no_library_for_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"the source is 'hf:x', but datasets cannot be imported .*pip install"):
        write_tokens(["hf:x"], tmp_path / "x.tokens", BYTES, progress=False)


# --- what is wrong ---------------------------------------------------------------------------------------


def test_a_byte_that_is_no_utf_8_is_named(folder: Path, tmp_path: Path) -> None:
    path = folder / "z.txt"
    for good in ("", "é" * 40, "word " * 100):
        path.write_bytes(good.encode() + b"\xff and on " * 30)
        with pytest.raises(DataError, match=rf"z\.txt' is no UTF-8 at byte {len(good.encode())} \(0xff: invalid start"):
            write_tokens([folder], tmp_path / "out" / "x.tokens", BYTES, workers=2, progress=False)
    path.write_bytes("é".encode()[:1])
    with pytest.raises(DataError, match=r"z\.txt' is no UTF-8 at byte 0 \(0xc3: unexpected end of data"):
        write_tokens([folder], tmp_path / "out" / "x.tokens", BYTES, workers=2, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sources", "changes", "message"),
    [
        ([], {}, "there are no sources"),
        (["txet"], {}, r"the source is 'txet', which does not exist \(nearest: 'text'\); allowed: text files"),
        (["text"], {"pattern": "*.rst"}, r"'text' holds no files whose names match '\*\.rst'"),
        (["text"], {"pattern": "/x"}, "the pattern is '/x': Non-relative"),
        (["empty.txt"], {}, "the sources hold no text"),
        (["text"], {"target": "x.bin"}, r"the target is 'x\.bin'; allowed: a name that ends in \.tokens"),
        (["text"], {"val": "val"}, r"the target is 'val'; allowed"),
        (["text"], {"val": "./x.tokens"}, "the target and val are both"),
        (["text"], {"val": "v.tokens", "val_share": 0.0}, r"val_share is 0\.0; allowed: more than 0"),
        (["text/1/1.txt"], {"val": "v.tokens"}, r"of 1 documents none falls to 'v\.tokens'"),
        (["text/1/1.txt"], {"val": "v.tokens", "val_share": 0.999999}, r"of 1 documents none falls to 'x\.tokens'"),
    ],
)
def test_what_cannot_be_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sources: list[str], changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("empty.txt").touch()
    before = written(folder.parent)
    with pytest.raises(DataError, match=message):
        write_tokens(sources, **({"target": "x.tokens", "tokenizer": BYTES, "workers": 1, "progress": False} | changes))
    assert written(folder.parent) == before


def test_nothing_is_overwritten_unasked(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.tokens"
    write_tokens([folder], target, BYTES, workers=1, progress=False)
    before = target.read_bytes()
    with pytest.raises(DataError, match="exists; remove both"):
        write_tokens([folder / "1"], target, BYTES, workers=1, progress=False)
    (folder / "z.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="is no UTF-8"):
        write_tokens([folder], target, BYTES, workers=1, progress=False, overwrite=True)
    assert target.read_bytes() == before
    assert verify_tokens(target)
    write_tokens([folder / "1"], target, BYTES, workers=1, progress=False, overwrite=True)
    assert verify_tokens(target).source == str(folder / "1")


@pytest.mark.parametrize("task", ["check_file", "read"])
def test_a_killed_process_ends_the_writing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(*((encode, task) if task == "check_file" else (documents.FilePart, task)), die)
    with pytest.raises(DataError, match="was killed"):
        write_tokens([folder], tmp_path / "out" / "x.tokens", BYTES, workers=2, progress=False)
    assert written(tmp_path) == written_sources(folder)
    assert not multiprocessing.active_children()


def written_sources(folder: Path) -> set[str]:
    return {f"{folder.name}/{name}" for name in written(folder)}


def test_a_file_that_changes_meanwhile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = write._check_files

    def then_change(*arguments: Any) -> Any:
        parts = real(*arguments)
        (folder / "1" / "10.txt").write_text("short")
        return parts

    monkeypatch.setattr(write, "_check_files", then_change)
    with pytest.raises(DataError, match=r"10\.txt' changed while it was being encoded"):
        write_tokens([folder], tmp_path / "out" / "x.tokens", BYTES, workers=2, progress=False)
    assert written(tmp_path) == written_sources(folder)


class Faulty(BytesTokenizer):
    def spell(self, ids: Any) -> bytes:
        return super().spell(ids).replace("漢".encode(), b"?")


def test_a_text_that_does_not_come_back(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.txt' does not come back from its bytes tokens"):
        write_tokens([folder], tmp_path / "out" / "x.tokens", Faulty(), workers=2, progress=False)
    assert written(tmp_path) == written_sources(folder)


def test_a_file_that_reads_back_otherwise(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "digest", lambda path: "0" * 64)
    with pytest.raises(DataError, match="is its disk sound"):
        write_tokens([folder], tmp_path / "out" / "x.tokens", BYTES, workers=2, progress=False)
    assert written(tmp_path) == written_sources(folder)


class Slow(BytesTokenizer):
    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        time.sleep(0.2)
        return super().encode(text)


@pytest.fixture
def writing(folder: Path, tmp_path: Path) -> Iterator[multiprocessing.Process]:
    """A process that has begun to write two files, which takes it a minute."""
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(
        target=write_tokens,
        args=([folder], out / "x.tokens", Slow()),
        kwargs={"val": out / "val.tokens", "val_share": 0.5, "workers": 2, "progress": False},
    )
    process.start()
    while not list(out.glob(".x.tokens.*.tmp")):
        assert process.is_alive()
        time.sleep(0.002)
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.02, 0.3])
def test_an_interrupt_leaves_nothing(
    writing: multiprocessing.Process, folder: Path, tmp_path: Path, seconds: float
) -> None:
    time.sleep(seconds)
    os.kill(writing.pid, signal.SIGINT)
    writing.join(20)
    assert writing.exitcode not in (0, None)
    assert written(tmp_path) == written_sources(folder)


def test_workers_end_with_the_process_that_started_them(writing: multiprocessing.Process, tmp_path: Path) -> None:
    children = Path(f"/proc/{writing.pid}/task/{writing.pid}/children")
    while len(workers := children.read_text().split()) < 2:
        time.sleep(0.01)
    time.sleep(0.3)  # they have begun
    writing.kill()
    deadline = time.monotonic() + 20
    while any(Path("/proc", worker).exists() and not is_zombie(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert all(name.startswith(".") for name in os.listdir(tmp_path / "out"))


def is_zombie(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    class Large(BytesTokenizer):
        vocab_size = 100_000
        end_of_text = 99_999

    with writer.TokenWriter(tmp_path / "x.tokens", Large()) as file:
        tokens = np.array([70_000, 99_999])
        file.add(writer.Encoded(tokens, 1, 5, 1))
        sidecar = file.finish("x")
    sidecar_path(tmp_path / "x.tokens").write_text(sidecar.model_dump_json())
    assert (sidecar.dtype, sidecar.bytes) == ("uint32", 8)
    assert content(tmp_path / "x.tokens").tolist() == tokens.tolist()


# --- verify ----------------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), "bytes where its sidecar says"),
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: sidecar_path(path).unlink(), "has no sidecar"),
        (lambda path: sidecar_path(path).write_text("{}"), "is no sidecar of a token file; .* `vmoe tokens`"),
        (flip_a_bit, "SHA-256"),
    ],
)
def test_verify_finds_damage(folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.tokens"
    write_tokens([folder], path, BYTES, workers=1, progress=False)
    shutil.copy(path, tmp_path / "y.tokens")
    shutil.copy(sidecar_path(path), sidecar_path(tmp_path / "y.tokens"))
    damage(path)
    with pytest.raises(DataError, match=message):
        verify_tokens(path)
    assert verify_tokens(tmp_path / "y.tokens")


def test_a_tokenizer_is_what_all_are() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Tokenizer()  # type: ignore[abstract]
