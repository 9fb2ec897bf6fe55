"""Small token files, and the config that reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmoe.config.schema import TextDataConfig
from vmoe.data.sidecar import sidecar_path
from vmoe.data.tokens import TokenSidecar

TOKENS = 541  # a prime: no block or number of processes divides it


def write_ids(path: Path, ids: NDArray[np.int64], **changes: Any) -> Path:
    """A token file of any ids, with a sidecar that is right unless changed."""
    content = ids.astype("<u2").tobytes()
    path.write_bytes(content)
    values = {
        "tokens": len(ids),
        "dtype": "uint16",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "vocab_size": 2**16,
        "end_of_text": 256,
        "tokenizer": {"kind": "bytes"},
        "documents": 1,
        "text_bytes": max(1, len(ids)),
        "words": 1,
        "source": "ids",
    }
    sidecar_path(path).write_text(TokenSidecar(**(values | changes)).model_dump_json())
    return path


def config(path: Path | str, **changes: Any) -> TextDataConfig:
    """Train and val from one file, unless changed."""
    values = {"train": str(path), "val": str(path), "batch_size": 4, "eval_batch_size": 3, "block_size": 8}
    return TextDataConfig(**(values | changes))
