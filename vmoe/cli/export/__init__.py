"""`vmoe export`: a checkpoint's model as a folder of safetensors with a model card, and onto the Hugging Face hub."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from vmoe.api import Weights, build_stored
from vmoe.config import ConfigError, RunConfig, override_config
from vmoe.files import flush, temporary_name
from vmoe.train.checkpoint import KEYS, read_checkpoint
from vmoe.train.checkpoint.exported import CONFIG, ENTRY, WEIGHTS, describe_export, read_export

from ..subject import run_of
from ..tasks import Assembly, assembly_of
from .card import CARD, model_card
from .push import check_repository, push

FILES = frozenset({WEIGHTS, CONFIG, CARD})
# Keys of a config that say where things lie on this machine; of these the last name alone is exported.
PLACES = (("output",), ("data", "train"), ("data", "val"), ("data", "cache"), ("model", "weights"))


class Export(NamedTuple):
    """A model and what is said of it. about: of its input and labels, as the backbone's `save_folder` takes it."""

    model: nn.Module
    stored: dict[str, Any]
    config: RunConfig
    assembly: Assembly[Any]
    about: dict[str, Any]


def run(options: argparse.Namespace) -> None:
    if options.private and options.push is None:
        raise ValueError("--private is given without --push; allowed: --push OWNER/NAME --private")
    if options.push is not None:
        check_repository(options.push)
    source = options.checkpoint
    folder = Path(options.output) if options.output is not None else default_folder(source)
    check_free(folder, overwrite=options.overwrite)
    export = open_export(source, options.weights)
    name = options.push or f"OWNER/{run_of(Path(source)).absolute().name}-{Path(source).stem}"
    card = model_card(export.model, export.stored, export.assembly, name=name, source=source, weights=options.weights)
    write(export, folder, card)
    print(folder)
    if options.push is not None:
        print(push(export.model, export.assembly.backbone, folder, export.about, options.push, private=options.private))


def default_folder(source: str) -> Path:
    """RUN/export/CHECKPOINT."""
    path = Path(source)
    return run_of(path) / "export" / path.stem


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Raise `ValueError` where the folder is there and not to be overwritten, or holds what is of something else."""
    if not folder.exists():
        return
    if not overwrite:
        raise ValueError(f"{folder} is there already; allowed: another --output, or --overwrite")
    others = sorted(set(os.listdir(folder)) - FILES) if folder.is_dir() else [folder.name]
    if others:
        raise ValueError(f"{folder} holds {others[0]}, which is no part of an export, and is not overwritten")


def open_export(source: str, weights: Weights) -> Export:
    """Build the model with the weights that are asked for. Raises as `vmoe.load` does."""
    stored = read_checkpoint(source)
    model = build_stored(stored, source, weights)
    config = override_config(stored["config"], [], source)
    assembly = assembly_of(config)
    public = {key: stored[key] for key in KEYS} | {"config": without_places(stored["config"])}
    entry = describe_export(public, model.state_dict())
    about = assembly.describe_input(stored["data"])
    about["model_config"][ENTRY] = entry
    return Export(model, public, config, assembly, about)


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A config that does not tell how this machine's folders are called."""
    public: dict[str, Any] = json.loads(json.dumps(config))
    for *sections, key in PLACES:
        inside = public
        for section in sections:
            inside = inside[section]
        if inside.get(key):
            inside[key] = Path(inside[key]).name
    return public


def write(export: Export, folder: Path, card: str) -> None:
    """Write the folder under a temporary name, read it back, and rename it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = temporary_name(folder), temporary_name(folder.with_name(folder.name + ".old"))
    for path in (temporary, old):
        shutil.rmtree(path, ignore_errors=True)
    try:
        temporary.mkdir()
        try:
            export.assembly.backbone.save_folder(export.model, temporary, export.about)
        except RuntimeError as error:  # timm's, of tensors that share memory
            raise ConfigError(f"{export.config.model.name} cannot be written as safetensors: {error}") from None
        (temporary / CARD).write_text(card, encoding="utf-8")
        shutil.copymode(temporary / CARD, temporary / WEIGHTS)  # safetensors lets nobody else read it
        read_export(temporary, str(folder))
        for name in FILES:
            flush(temporary / name)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    finally:
        for path in (temporary, old):
            shutil.rmtree(path, ignore_errors=True)
