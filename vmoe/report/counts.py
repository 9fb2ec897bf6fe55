"""`routing.npz`: the integer counts of an evaluation, which add up over evaluations, and what follows from them.

Shapes: E experts, C labels, P positions of a sequence.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vmoe.files import replacing
from vmoe.untrusted import open_file

COUNTS = "routing.npz"
MOST_BYTES = 2**31  # of an .npz, inflated: GPT-2 XL with 64 experts in every block has 1.3 billion
FORMAT = 1
Integers = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerCounts:
    """Counts of one MoE layer, int64.

    tokens (): that passed it. rows (): that its experts computed. pairs (E,): active, of each expert. mass (E,): summed
    gate weights, and token_entropy (): summed entropies of tokens' own weights in nats, in units of 2⁻²⁴.
    tokens_by_experts (E + 1,): tokens with 0, 1, …, E active experts. both (E, E): tokens that activate both i and j.
    pairs_by_label (C, E): pairs of each label. pairs_by_position (P, E): pairs at each position of a sequence, and
    tokens_by_position (P,). grid (3,): tokens before the first patch, rows and columns of patches; (0,) where positions
    are none of an image.
    """

    tokens: Integers
    rows: Integers
    pairs: Integers
    mass: Integers
    token_entropy: Integers
    tokens_by_experts: Integers
    both: Integers
    pairs_by_label: Integers
    pairs_by_position: Integers
    tokens_by_position: Integers
    grid: Integers

    def __add__(self, other: LayerCounts) -> LayerCounts:
        if self.grid.tolist() != other.grid.tolist():
            raise ValueError(f"grids are {self.grid.tolist()} and {other.grid.tolist()}; allowed: the same")
        summed = {one.name: _sum(one.name, self, other) for one in fields(self) if one.name != "grid"}
        return replace(self, **summed)

    @property
    def num_experts(self) -> int:
        return len(self.pairs)

    @property
    def co_activation(self) -> Reals:
        """(E, E): share of the tokens that activate both."""
        return self.both / max(int(self.tokens), 1)

    @property
    def experts_per_token(self) -> Reals:
        """(E + 1,): share of the tokens with 0, 1, …, E active experts."""
        return self.tokens_by_experts / max(int(self.tokens), 1)

    @property
    def label_load(self) -> Reals:
        """(C, E): each expert's share of a label's pairs; rows sum to 1, or are 0 where a label has no pair."""
        return self.pairs_by_label / np.maximum(self.pairs_by_label.sum(1, keepdims=True), 1)

    @property
    def position_load(self) -> Reals:
        """(P, E): share of the tokens at a position that each expert serves."""
        return self.pairs_by_position / np.maximum(self.tokens_by_position, 1)[:, None]


@dataclass(frozen=True)
class Counts:
    """Of a whole model. layers: by their names. labels: names of the C labels, empty where none were counted."""

    layers: dict[str, LayerCounts]
    labels: tuple[str, ...]

    def __add__(self, other: Counts) -> Counts:
        """Of both evaluations together. Raises `ValueError` where they are not of models and labels alike."""
        if list(self.layers) != list(other.layers) or self.labels != other.labels:
            raise ValueError("counts of different layers or labels do not add up; allowed: of runs alike")
        return Counts({name: layer + other.layers[name] for name, layer in self.layers.items()}, self.labels)


def save_counts(counts: Counts, path: Path) -> Path:
    """Write the file, by a temporary name. Returns the path."""
    arrays: dict[str, NDArray[np.generic]] = {
        "format": np.array(FORMAT),
        "layers": np.array(list(counts.layers), dtype=np.str_),
        "labels": np.array(counts.labels, dtype=np.str_),
    }
    for number, layer in enumerate(counts.layers.values()):
        arrays |= {f"{number}.{one.name}": getattr(layer, one.name) for one in fields(layer)}
    save_arrays(arrays, path)
    return path


def read_counts(path: Path) -> Counts:
    """Read the file. Raises `FileNotFoundError`, or `ValueError` where it is not what `save_counts` writes."""
    arrays = read_arrays(path, FORMAT)
    try:
        layers = {
            str(name): LayerCounts(**{one.name: arrays[f"{number}.{one.name}"] for one in fields(LayerCounts)})
            for number, name in enumerate(arrays["layers"])
        }
        return Counts(layers, tuple(map(str, arrays["labels"])))
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; evaluate the run again with vmoe eval") from None
    except TypeError as error:  # names that are no list
        raise ValueError(f"{path} is damaged ({error}); evaluate the run again with vmoe eval") from None


def save_arrays(arrays: dict[str, NDArray[np.generic]], path: Path) -> None:
    """Write a compressed .npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, allowed_format: int) -> dict[str, NDArray[Any]]:
    """Read an .npz of that format whole. Raises `FileNotFoundError`, or `ValueError` for a damaged or other file."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file; vmoe eval writes it")
    try:
        with open_file(path) as content:
            _check_archive(content)
            with np.load(content, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and numpy meet arbitrary bytes
        raise ValueError(f"{path} is damaged ({error}); evaluate the run again with vmoe eval") from error
    number = arrays.get("format")
    if number is None or number.tolist() != allowed_format:
        found = None if number is None else number.tolist()
        raise ValueError(f"{path}: format is {found}; this version of vmoe reads {allowed_format}: evaluate it again")
    return arrays


def _check_archive(content: BinaryIO) -> None:
    """Raise `ValueError` for an .npz that holds more than a machine should read of an evaluation, or arrays that are
    not as large as they say: memory is taken by what they say.
    """
    with zipfile.ZipFile(content) as archive:
        if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
            raise ValueError(f"it holds more than {MOST_BYTES:,} bytes")
        for member in archive.infolist():
            with archive.open(member) as array:
                version = np.lib.format.read_magic(array)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(array)
                if math.prod(shape) * dtype.itemsize != member.file_size - array.tell():
                    raise ValueError(f"{member.filename} is not as large as it says")
    content.seek(0)


def _sum(name: str, one: LayerCounts, other: LayerCounts) -> Integers:
    """Of two arrays of a name; positions may be more in one of them."""
    arrays: Sequence[Integers] = (getattr(one, name), getattr(other, name))
    if name.endswith("_by_position"):
        longest = max(map(len, arrays))
        arrays = [np.pad(array, [(0, longest - len(array))] + [(0, 0)] * (array.ndim - 1)) for array in arrays]
    first, second = arrays
    if first.shape != second.shape:
        raise ValueError(f"{name} has shapes {first.shape} and {second.shape}; allowed: the same")
    return first + second
