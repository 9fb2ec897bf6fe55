"""Text to token files: all of it is looked at first, and the result is read back before it gets its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..errors import DataError, missing
from ..files import check_free, temporaries
from ..sidecar import check_digest, require_sidecar
from .documents import HUB, FilePart, Part, RowPart, find_files, open_rows
from .encode import Encoder
from .file import TOKENS, open_tokens
from .sidecar import TokenSidecar, read_token_sidecar
from .tokenizer import Tokenizer
from .writer import TokenWriter

VAL_SHARE = 0.0005


@dataclass(frozen=True)
class WrittenTokens:
    path: Path
    sidecar: TokenSidecar


def write_tokens(
    sources: Sequence[Path | str],
    target: Path | str,
    tokenizer: Tokenizer,
    *,
    val: Path | str | None = None,
    val_share: float = VAL_SHARE,
    pattern: str = "*.txt",
    split: str = "train",
    column: str = "text",
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[WrittenTokens]:
    """Write `target`, X.tokens, and its sidecar X.tokens.json; every document ends with the end of text.

    sources: text files in UTF-8, a document each; folders, of whose files those that match `pattern` are taken,
    sorted; ``hf:NAME``, a data set of the `datasets` library, of which each row of `column` in `split` is a document;
    ``python``, the sources of the standard library. val: a second file, for documents that follow from the digest of
    their text, about `val_share` of them, and go into no other. workers: processes; default, one a core this process
    may use. progress: show bars.

    The same sources give the same bytes, whatever the number of processes. Raises `DataError`: sources that are
    missing, hold no text or no UTF-8 (which byte), targets that are there and not to be overwritten, a process that
    died. Then the targets are as they were before, and nothing else is left.
    """
    targets = [Path(target)] if val is None else [Path(target), Path(val)]
    _check_targets(targets, val_share, overwrite)
    if not sources:
        raise DataError("there are no sources; allowed: text files, folders, hf:NAME, python")
    names = list(dict.fromkeys(map(str, sources)))
    encoder = Encoder(tokenizer, None if val is None else val_share, workers)
    files = {name: find_files(name, pattern) for name in names if not name.startswith(HUB)}
    rows = {name: open_rows(name, split, column) for name in names if name.startswith(HUB)}
    parts = _check_files(encoder, [path for name in files for path in files[name]], progress)
    total = None if rows else sum(part.size for some in parts.values() for part in some)
    if not rows:
        documents = Counter(encoder.goes_to_val(some[-1].digest) for some in parts.values())
        _check_counts([documents[False], documents[True]][: len(targets)], targets)
    for path in targets:
        path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        outputs = [stack.enter_context(temporaries(path)) for path in targets]
        writers = [stack.enter_context(TokenWriter(file, tokenizer)) for file, _ in outputs]
        with tqdm(total=total, desc="encode", unit="B", unit_scale=True, disable=None if progress else True) as bar:
            for size, encoded in encoder.encode(_in_order(names, files, parts, rows)):
                for writer, some in zip(writers, encoded, strict=False):
                    writer.add(some)
                bar.update(size)
        _check_counts([writer.documents for writer in writers], targets)
        sidecars = [writer.finish(", ".join(names)) for writer in writers]
        for (_, file), sidecar in zip(outputs, sidecars, strict=True):
            file.write_text(sidecar.model_dump_json(indent=2) + "\n")
    return [WrittenTokens(path, sidecar) for path, sidecar in zip(targets, sidecars, strict=True)]


def verify_tokens(path: Path | str) -> TokenSidecar:
    """Compare a token file with its sidecar: size, and every byte by its digest.

    Returns the sidecar. Raises `DataError`: no such file, no sidecar, or a difference.
    """
    path = Path(path)
    if not path.exists():
        raise missing("the file", path, "a token file, which `vmoe tokens` writes")
    sidecar = require_sidecar(path, read_token_sidecar(path))
    open_tokens(path, "the file")
    check_digest(path, sidecar.sha256)
    return sidecar


def _check_targets(targets: list[Path], val_share: float, overwrite: bool) -> None:
    for path in targets:
        if path.suffix != TOKENS:
            raise DataError(f"the target is '{path}'; allowed: a name that ends in {TOKENS}")
        check_free(path, overwrite=overwrite)
    if len({path.resolve() for path in targets}) < len(targets):
        raise DataError(f"the target and val are both '{targets[0]}'; allowed: two files")
    if not 0 < val_share < 1:
        raise DataError(f"val_share is {val_share}; allowed: more than 0 and less than 1")


def _check_files(encoder: Encoder, paths: list[Path], progress: bool) -> dict[Path, list[FilePart]]:
    """The parts of each file that has text."""
    parts: dict[Path, list[FilePart]] = {}
    with tqdm(desc="check", unit="B", unit_scale=True, disable=None if progress else True) as bar:
        for some in encoder.check(dict.fromkeys(paths)):
            for part in some:
                parts.setdefault(part.path, []).append(part)
            bar.update(sum(part.size for part in some))
    return parts


def _in_order(
    names: list[str],
    files: dict[str, list[Path]],
    parts: dict[Path, list[FilePart]],
    rows: dict[str, Iterator[RowPart]],
) -> Iterator[Part]:
    """All parts, source after source; a file that two sources name is taken once."""
    for name in names:
        if name in rows:
            yield from rows[name]
            continue
        for path in files[name]:
            yield from parts.pop(path, ())


def _check_counts(counts: list[int], targets: list[Path]) -> None:
    if not sum(counts):
        raise DataError("the sources hold no text: every file, or row, is empty")
    for path, count in zip(targets, counts, strict=True):
        if not count:
            raise DataError(
                f"of {sum(counts):,} documents none falls to '{path}'; allowed: another val_share, or more documents"
                " (a file, or a row, is one)"
            )
