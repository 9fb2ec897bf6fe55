"""The digest that somebody who makes a checkpoint by hand writes into it, so that it is read as far as a good one."""

from __future__ import annotations

from typing import Any

from vmoe.train.checkpoint.contents import digest_of


def digested(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with the digest of what it holds; with the one it has where its values have none."""
    try:
        return {**checkpoint, "digest": digest_of(checkpoint)}
    except (TypeError, ValueError, RuntimeError, NotImplementedError):  # no plain values, or tensors without numbers
        return checkpoint
