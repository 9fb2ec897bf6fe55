"""`vmoe tokens`: text as a token file."""

from __future__ import annotations

import argparse
from pathlib import Path

from vmoe.data import open_tokenizer, write_tokens


def run(options: argparse.Namespace) -> None:
    if options.val_share is not None and options.val is None:
        raise ValueError("--val-share needs --val, the file that this share of the documents goes to")
    if options.vocabulary is not None and options.tokenizer != "gpt2":
        raise ValueError(f"--vocabulary is of gpt2; --tokenizer is {options.tokenizer}")
    vocabulary = Path(options.vocabulary) if options.vocabulary else None
    tokenizer = open_tokenizer({"kind": options.tokenizer}, vocabulary)
    given = {"val_share": options.val_share} if options.val_share is not None else {}
    written = write_tokens(
        options.sources,
        options.target,
        tokenizer,
        val=options.val,
        **given,
        pattern=options.pattern,
        split=options.split,
        column=options.column,
        workers=options.workers,
        overwrite=options.overwrite,
    )
    for one in written:
        found = one.sidecar
        print(
            f"{one.path}: {found.tokens:,} tokens of {found.documents:,} documents, {found.text_bytes:,} bytes of text"
        )
