"""Where the records of a run go besides metrics.jsonl: TensorBoard, Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from vmoe.config import ConfigError, RunConfig

Entry = Mapping[str, Any]


class Sink(Protocol):
    """Takes the entries of metrics.jsonl as they are written."""

    def log(self, entry: Entry) -> None:
        """One entry; it has ``kind`` and ``step``."""

    def close(self) -> None:
        """No entry follows."""


class TensorBoard:
    """Event files in the run folder's ``tensorboard``; what a run that goes on writes again replaces what was there."""

    def __init__(self, folder: Path, *, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def log(self, entry: Entry) -> None:
        for name, value in scalars(entry):
            self.writer.add_scalar(name, value, entry["step"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of a project; its identity is kept in the run folder, so that a run that goes on is the same one there."""

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]):
        import wandb

        identity = folder / "wandb_id"
        if not identity.exists():
            identity.write_text(secrets.token_hex(4), encoding="utf-8")
        self.run = wandb.init(
            project=project,
            name=folder.name,
            id=identity.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )

    def log(self, entry: Entry) -> None:
        self.run.log(dict(scalars(entry)), step=entry["step"])

    def close(self) -> None:
        self.run.finish()


def check_sinks(config: RunConfig) -> None:
    """Raise `ConfigError` where the config asks for a log whose package is not installed."""
    asked = {"tensorboard": config.train.tensorboard, "wandb": config.train.wandb is not None}
    for package, wanted in asked.items():
        if wanted and find_spec(package) is None:
            raise ConfigError(
                f"train.{package} is {getattr(config.train, package)!r}, and {package} is not installed:"
                f" pip install 'vmoe[{package}]'"
            )


def open_sinks(config: RunConfig, folder: Path, *, step: int) -> list[Sink]:
    """The sinks that the config asks for. step: the last one that a run which goes on has done."""
    sinks: list[Sink] = []
    if config.train.tensorboard:
        sinks.append(TensorBoard(folder, step=step))
    if config.train.wandb is not None:
        sinks.append(WeightsAndBiases(folder, config.train.wandb, config.model_dump(mode="json")))
    return sinks


def scalars(entry: Entry) -> Iterator[tuple[str, float]]:
    """An entry's numbers, by names such as ``train/loss`` or ``evaluation/routing/entropy``; lists are left out."""
    values = {key: value for key, value in entry.items() if key not in ("kind", "step")}
    return _numbers(str(entry["kind"]), values)


def _numbers(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{prefix}/{key}", inner)
    elif isinstance(value, int | float):
        yield prefix, float(value)
