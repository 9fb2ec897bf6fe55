"""What the measured rates say: where a sample waits, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .parts import DECODE, READ, Sample
from .rate import Rate

ENOUGH = 1.1  # times what the model takes: a loader that gives less leaves it waiting now and then
SCALES = 0.6  # of the rate of one worker, for each: less means that they are in each other's way
LARGE = 2.0  # times data.image_size: longer sides cost decoding that the crop does not need
IN_MEMORY = 0.95  # of a file's pages: more is as good as all
MODEL = "the model"


class Measured(Protocol):
    """A loader that was timed."""

    @property
    def all(self) -> Rate:
        """Of the whole loader, as the config has it."""

    @property
    def rates(self) -> Mapping[str, Rate]:
        """Of its stages, by their names."""

    @property
    def slowest(self) -> str:
        """The stage that a sample spends most time in."""

    def about(self) -> str:
        """What the samples are like, in a few words."""

    def advice(self) -> list[str]:
        """What would make it faster, the most promising first."""


@dataclass(frozen=True)
class Judged:
    """bottleneck: the loader's slowest stage, or the model. ratio: samples that the loader gives over those that the
    model takes, None without a model. advice: what to change, where the loader is what a run waits for.
    """

    bottleneck: str
    ratio: float | None
    advice: tuple[str, ...]


def judge(measured: Measured, model: Rate | None) -> Judged:
    """model: what it takes a second; None where it was not timed, so that the loader is all there is."""
    ratio = None if model is None else measured.all.median / model.median
    if ratio is not None and ratio >= ENOUGH:
        return Judged(MODEL, ratio, ())
    return Judged(measured.slowest, ratio, tuple(measured.advice()))


@dataclass(frozen=True)
class MeasuredTokens:
    """A token loader, which only reads."""

    all: Rate

    @property
    def rates(self) -> Mapping[str, Rate]:
        return {"whole loader": self.all}

    @property
    def slowest(self) -> str:
        return READ

    def about(self) -> str:
        return "tokens mapped into memory"

    def advice(self) -> list[str]:
        return ["memory for the page cache, or a nearer disk"]


@dataclass(frozen=True)
class MeasuredImages:
    """A loader of images, by data.loader's name for it.

    workers: of each process, of which `processes` share `cores`. parts: rates in one thread, by `Part.name`. one: of
    the whole loader with one worker; all: with `workers`.
    """

    loader: str
    workers: int
    processes: int
    cores: int
    image_size: int
    sample: Sample
    parts: Mapping[str, Rate]
    one: Rate
    all: Rate

    @property
    def rates(self) -> Mapping[str, Rate]:
        whole = {"whole loader, 1 worker": self.one}
        if self.workers > 1:
            whole[f"whole loader, {self.workers} workers"] = self.all
        return {**self.parts, **whole}

    @property
    def slowest(self) -> str:
        return min(self.parts, key=lambda name: self.parts[name].median)

    @property
    def too_small(self) -> bool:
        """Whether calls, which the loader's compiled code does not make, take longer than the work of the parts."""
        return self.one.median > self.parts[self.slowest].median

    def about(self) -> str:
        sample = self.sample
        resident = "unknown" if sample.resident is None else f"{sample.resident:.0%}"
        return (
            f"images of {sample.bytes:,.0f} bytes and {sample.side:,.0f} pixels (the shorter side),"
            f" {sample.compressed:.0%} compressed; in the page cache before: {resident}"
            + "; so small that calling the parts one by one takes longer than the loader itself"
            * self.too_small
        )

    def advice(self) -> list[str]:
        threads, found = self.workers * self.processes, []
        if self.slowest != READ and threads < self.cores:
            share = self.cores // self.processes
            found.append(f"more workers: a process has {self.workers}, and {share} cores to itself (data.workers)")
        if self.workers > 1 and self.all.median < SCALES * self.workers * self.one.median:
            gain = self.all.median / self.one.median
            crowded = f"; {threads} share {self.cores} cores: fewer workers, or processes" * (threads > self.cores)
            found.append(f"{self.workers} workers give {gain:.1f} times what one gives{crowded}")
        if self.slowest == READ:
            return found + self._about_reading()
        if self.loader == "folder":
            return [*found, "FFCV's files and threads: `vmoe write FOLDER X.beton`, data.loader=ffcv"]
        return found + self._about_storing()

    def _about_reading(self) -> list[str]:
        smaller = "smaller images (`vmoe write --max-resolution`), or of lower JPEG quality (`--quality`)"
        if self.sample.compressed < 1:
            smaller = "compressed images (`vmoe write --mode jpg`)"
        resident = self.sample.resident
        if resident is None or resident >= IN_MEMORY:
            return [smaller]
        return [f"memory for the page cache, which held {resident:.0%} of what is read, or a nearer disk", smaller]

    def _about_storing(self) -> list[str]:
        """How the file could be written so that less is to be done when it is read."""
        found = []
        if self.sample.side > LARGE * self.image_size:
            found.append(
                f"smaller images in the file: shorter sides have {self.sample.side:.0f} pixels, data.image_size is"
                f" {self.image_size} (`vmoe write --max-resolution {int(LARGE * self.image_size)}`)"
            )
        if self.slowest == DECODE:
            mode = "proportion, or raw" if self.sample.compressed == 1 else "raw"
            found.append(f"images stored as they are, for more bytes to read (`vmoe write --mode {mode}`)")
            found.append("a lower JPEG quality, which decodes a little faster (`vmoe write --quality`)")
        return found
