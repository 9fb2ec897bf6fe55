"""Token files in batches: inputs, and the targets that follow them."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .file import TokenFile
from .sidecar import TokenSidecar
from .tokenizer import Description
from .windows import Cut, SampleWindows, Windows

IGNORE = -100
"""In place of a target that is not counted: what torch's cross_entropy ignores unless told otherwise."""


class TokenLoader:
    """One process's share of a token file.

    A batch is (inputs (B, N), targets (B, N)), int64, in CPU memory of its own (pinned where torch sees a GPU);
    targets are the inputs shifted by one, and IGNORE where they are not counted.
    """

    def __init__(self, file: TokenFile, cut: Cut) -> None:
        self._file = file
        self._cut = cut

    @property
    def samples(self) -> int:
        """Sequences, or windows of evaluation, that one epoch covers over all processes."""
        return self._cut.samples

    @property
    def tokens(self) -> int:
        """Targets that one epoch counts over all processes."""
        return self._cut.tokens

    @property
    def units(self) -> int:
        """What results count: tokens that are predicted."""
        return self.tokens

    @property
    def batches(self) -> int:
        """Batches an epoch on this process."""
        return self._cut.batches

    @property
    def tokenizer(self) -> Description:
        """Of what tokenizer the tokens are: see `open_tokenizer`."""
        return dict(self._file.tokenizer)

    @property
    def vocab_size(self) -> int:
        return self._file.vocab_size

    @property
    def sidecar(self) -> TokenSidecar | None:
        """What is known of the text; None for a file of nanoGPT's."""
        return self._file.sidecar

    def __len__(self) -> int:
        return self.batches

    def epoch(self, number: int, first: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The batches of epoch `number`, from batch `first` on; earlier ones are skipped without being read.

        What is in the batches depends on the seed and the number alone. Raises `DataError`: a token that the
        vocabulary lacks.
        """
        for windows in self._cut.windows(number, first):
            yield self._read(windows)

    def sample(self, count: int) -> TokenLoader:
        """A loader of so many sequences at most, evenly spaced over the file, in one batch, all on this process."""
        return TokenLoader(self._file, SampleWindows(len(self._file), self._cut.block_size, count))

    def _read(self, windows: Windows) -> tuple[Tensor, Tensor]:
        tokens = self._file.read(windows.starts, windows.length + 1)
        targets = tokens[:, 1:].copy()
        targets[np.arange(windows.length) < windows.ignored[:, None]] = IGNORE
        batch = torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(targets)
        return (batch[0].pin_memory(), batch[1].pin_memory()) if torch.cuda.is_available() else batch


class TokenLoaders(NamedTuple):
    train: TokenLoader
    val: TokenLoader
