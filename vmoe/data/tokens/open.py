"""From the `data` section of a text run to loaders, with all that can be checked checked before any work begins."""

from __future__ import annotations

from pathlib import Path

from vmoe.config.schema import PYTHON, TextDataConfig

from ..errors import DataError
from ..loader import Processes, Share
from ..order import TrainingOrder
from .file import TokenFile, open_tokens
from .loader import TokenLoader, TokenLoaders
from .python_sources import materialise
from .tokenizer import Description, check_same
from .windows import EvaluationWindows, TrainingBlocks, count_blocks


def open_token_loaders(
    data: TextDataConfig, *, seed: int, batch_size: int, accumulate: int = 1, processes: Processes | None = None
) -> TokenLoaders:
    """The loaders of a training run.

    seed: of the order of blocks, and of where they begin. batch_size: sequences a batch on each process. accumulate:
    batches an optimizer step; an epoch of training has a multiple of it. processes: default, this one alone.

    Raises `DataError` (a `ValueError`; also a `FileNotFoundError` for a path that is missing), whose message begins
    with the key: files that are missing, damaged or none of tokens; fewer blocks than a step takes; tokenizers of the
    two splits that differ.
    """
    processes = processes or Share()
    if batch_size < 1:
        raise DataError(f"data.batch_size makes batches of {batch_size} sequences; allowed: 1 or more a process")
    train, val = _open(data, data.train, "data.train"), _open(data, data.val, "data.val")
    check_same(val.tokenizer, "data.val", train.tokenizer, "data.train")
    blocks = count_blocks(len(train), data.block_size)
    step = batch_size * processes.world * accumulate
    if blocks < step:
        raise DataError(
            f"data.train is '{train.path}' with {len(train):,} tokens, {blocks:,} blocks of data.block_size"
            f" {data.block_size:,}, fewer than one optimizer step takes: data.batch_size is {step:,}"
            f" ({processes.world} processes × {accumulate} batches × {batch_size}); allowed: at most {blocks:,}, or"
            " shorter blocks"
        )
    order = TrainingOrder(blocks, batch_size, processes, seed, accumulate)
    return TokenLoaders(TokenLoader(train, TrainingBlocks(order, data.block_size)), _evaluation(data, val, processes))


def open_token_evaluation(
    data: TextDataConfig,
    path: str | None = None,
    *,
    tokenizer: Description | None = None,
    key: str = "data.val",
    processes: Processes | None = None,
) -> TokenLoader:
    """The loader of an evaluation, which counts every token but the first once.

    path: as data.val, which is the default; key: what it is called in errors. tokenizer: that of the model, in
    `Tokenizer.describe`'s words, which the data must have too.

    Raises `DataError`, as `open_token_loaders` does.
    """
    file = _open(data, path or data.val, key)
    if tokenizer is not None:
        check_same(file.tokenizer, key, tokenizer, "the model")
    return _evaluation(data, file, processes or Share())


def _open(data: TextDataConfig, path: str, key: str) -> TokenFile:
    if path == PYTHON:
        train, val = materialise(data.cache / PYTHON)
        return open_tokens(train if key == "data.train" else val, key)
    return open_tokens(Path(path), key)


def _evaluation(data: TextDataConfig, file: TokenFile, processes: Processes) -> TokenLoader:
    stride = data.eval_stride or data.block_size
    windows = EvaluationWindows(len(file), data.block_size, stride, data.eval_batch_size, processes)
    return TokenLoader(file, windows)
