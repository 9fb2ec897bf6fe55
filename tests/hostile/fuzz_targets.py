"""What is fuzzed: readers of files, with small good files to begin from, and what a value that they give must be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Target(NamedTuple):
    """seeds: good files. name: what a mutated one is called. beside: files that lie beside it, by their names. read:
    gives a value or raises; it checks the value by assertions.
    """

    seeds: list[bytes]
    name: str
    read: Callable[[Path], object]
    beside: dict[str, bytes]


def targets(good: Path, run: Path) -> dict[str, Target]:
    """good: the world of `hostile_world`. run: a run folder of `run_folders.image_run`."""

    def seeds(*names: str) -> list[bytes]:
        return [(good / name).read_bytes() for name in names]

    def of_run(name: str) -> list[bytes]:
        return [(run / name).read_bytes()]

    image = (good / "images/val/dark/0.png").read_bytes()
    tokens, sidecar = seeds("val.tokens", "val.tokens.json")
    beton, beton_sidecar = seeds("good.beton", "good.beton.json")
    real = [json.dumps([[1, 2], [], [3]]).encode()]
    return {
        "checkpoint": Target(seeds("runs/tiny/checkpoints/last.pt"), "x.pt", read_model, {}),
        "config": Target(seeds("tiny.yaml", "text.yaml"), "x.yaml", read_config, {}),
        ".beton file": Target([beton], "x.beton", read_beton, {}),
        ".beton sidecar": Target([beton_sidecar], "x.beton.json", read_beside_beton, {"x.beton": beton}),
        "token file": Target([tokens], "x.tokens", read_tokens, {"x.tokens.json": sidecar}),
        "token sidecar": Target([sidecar], "x.tokens.json", read_beside_tokens, {"x.tokens": tokens}),
        "image": Target([image, jpeg(image)], "x/a/0.png", read_picture, {}),
        "real labels": Target(real, "real.json", read_real, {}),
        "result.json": Target(of_run("result.json"), "result.json", read_result, {}),
        "metrics.jsonl": Target(of_run("metrics.jsonl"), "metrics.jsonl", read_history, {}),
        "routing.npz": Target(of_run("routing.npz"), "routing.npz", read_counted, {}),
        "routing_maps.npz": Target(of_run("routing_maps.npz"), "routing_maps.npz", read_maps, {}),
        "page of result.json": page("result.json", run),
        "page of metrics.jsonl": page("metrics.jsonl", run),
        "page of routing.npz": page("routing.npz", run),
    }


def jpeg(image: bytes) -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


def page(name: str, run: Path) -> Target:
    """The page of a run folder of which one file is mutated; it is always made."""
    kept = [
        one for one in run.iterdir() if one.is_file() and one.name not in (name, "routing_maps.npz")
    ]  # maps are slow
    others = {one.name: one.read_bytes() for one in kept}

    def read(path: Path) -> object:
        from hostile_runner import sketched
        from html_page import HtmlPage

        from vmoe.report.run_files import read_folder
        from vmoe.report.run_page import save_run_page

        try:
            with sketched():
                written = save_run_page(read_folder(path.parent), path.parent / "out")
            HtmlPage(written.read_text(encoding="utf-8"))
        finally:
            shutil.rmtree(path.parent / "out", ignore_errors=True)
        return written

    return Target([(run / name).read_bytes()], name, read, others)


def read_model(path: Path) -> object:
    from vmoe.api import build_stored
    from vmoe.cli.stored import read_stored

    stored = read_stored(path)
    model = build_stored(stored, str(path))
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    return model


def read_config(path: Path) -> object:
    from vmoe.config import dump_config, load_config, override_config

    config = load_config(path)
    import yaml

    assert override_config(yaml.safe_load(dump_config(config)), [], "dumped").model_dump() == config.model_dump()
    return config


def read_beton(path: Path) -> object:
    from vmoe.data.beton import open_beton

    found = open_beton(path, "the file")
    assert len(found.labels) == len(found.heights) == len(found.widths) > 0
    assert found.heights.min() > 0
    assert found.widths.min() > 0
    assert found.labels.min() >= 0
    return found


def read_beside_beton(path: Path) -> object:
    from vmoe.data import verify_beton

    return verify_beton(path.with_suffix(""))


def read_tokens(path: Path) -> object:
    from vmoe.data.tokens.file import open_tokens

    file = open_tokens(path, "the file")
    read = file.read(np.array([0]), len(file))
    assert 0 <= read.min() <= read.max() < file.vocab_size
    return file


def read_beside_tokens(path: Path) -> object:
    return read_tokens(path.with_suffix(""))


def read_picture(path: Path) -> object:
    from vmoe.data.images import read_image, scan_classes

    folders = scan_classes(path.parents[1], "the folder")
    image = read_image(folders.files[0])
    assert image.mode == "RGB"
    assert min(image.size) > 0
    return image


def read_real(path: Path) -> object:
    from vmoe.data.real_labels import read_real_labels

    labels = read_real_labels(str(path), 10)
    assert all(0 <= label < 10 for some in labels for label in some)
    return labels


def read_result(path: Path) -> object:
    from vmoe.report import read_run
    from vmoe.report.comparison import comparison_table
    from vmoe.report.seeds import rows_of

    run = read_run(path.parent)
    assert comparison_table(rows_of([run], each=True)).text().isprintable() or True
    return run


def read_history(path: Path) -> object:
    from vmoe.report.metrics import read_metrics

    found = read_metrics(path)
    moments: list[Any] = [*found.train, *found.evaluations]
    assert all(0 <= one.step < 2**53 for one in moments)
    return moments


def read_counted(path: Path) -> object:
    from vmoe.report.counts import read_counts

    return read_counts(path)


def read_maps(path: Path) -> object:
    from vmoe.report.routing_maps import read_routing_maps

    return read_routing_maps(path)
