"""`vmoe verify`: is a .beton or token file what its sidecar says?"""

from __future__ import annotations

import argparse
from pathlib import Path

from vmoe.data import verify_beton, verify_tokens


def run(options: argparse.Namespace) -> None:
    if Path(options.file).suffix in (".tokens", ".bin"):
        tokens = verify_tokens(options.file)
        print(f"{options.file}: {tokens.tokens:,} tokens of {tokens.documents:,} documents, as written")
        return
    sidecar = verify_beton(options.file)
    print(f"{options.file}: {sidecar.samples:,} images of {len(sidecar.classes)} classes, as written")
