"""Run folders that somebody else made: every file of one, for report and compare."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_case import BIDI, ESCAPES, MARKUP, MIB, Hostile, Payload, fifo, link, sparse
from hostile_configs import brackets
from html_page import HtmlPage
from run_folders import image_run

REPORT = ("report", "run", "--output", "out")
COMPARE = ("compare", "run")
PAGE = ("compare", "run", "--output", "out")
OUT = ("out", "out/*")
NUMPY_BOMB = 2**31  # bytes that it says it has


def run(change: Callable[[], object]) -> Callable[[], None]:
    """Makes a good run folder but for what `change` does in it."""

    def make() -> None:
        image_run(Path("run"))
        Path("run/result.json").chmod(0o644)
        change()

    return make


def result(*keys: str | int, value: Any) -> Callable[[], None]:
    """Makes a run one value of whose result.json is another."""

    def change() -> None:
        found = json.loads(Path("run/result.json").read_text())
        inner = found
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        Path("run/result.json").write_text(json.dumps(found))

    return run(change)


def text(name: str, content: str) -> Callable[[], None]:
    return run(lambda: Path("run", name).write_text(content))


def added(name: str, content: str) -> Callable[[], None]:
    def change() -> None:
        with Path("run", name).open("a") as file:
            file.write(content)

    return run(change)


def line(**values: Any) -> str:
    return json.dumps({"kind": "train", "step": 99, "epoch": 1.0, "loss": 1.0, **values}) + "\n"


def in_place_of(name: str, make: Callable[[str], object]) -> Callable[[], None]:
    """Makes a run of which one file is something else."""

    def change() -> None:
        Path("run", name).unlink(missing_ok=True)
        make(f"run/{name}")

    return run(change)


def arrays(name: str, **changed: Any) -> Callable[[], None]:
    """Makes a run of which some arrays of an .npz are others."""

    def change() -> None:
        with np.load(Path("run", name), allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
        found |= {key: value(found[key]) if callable(value) else value for key, value in changed.items()}
        np.savez(Path("run", name), allow_pickle=True, **found)

    return run(change)


def lying_array(path: str) -> None:
    """An array that says it has 2⁴⁰ numbers, and has none."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<i8", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("format.npy", stream.getvalue())


def inflating_array(path: str) -> None:
    """Megabytes that inflate to gigabytes."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (4 * NUMPY_BOMB,)})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("format.npy", "w", force_zip64=True) as member,
    ):
        member.write(stream.getvalue())
        for _ in range(4 * NUMPY_BOMB // (64 * MIB)):
            member.write(bytes(64 * MIB))


def one_array(path: str) -> None:
    with open(path, "wb") as file:
        np.save(file, np.ones(3))


def pickled_array(path: str) -> None:
    np.savez(path, allow_pickle=True, format=np.array([Payload()], dtype=object))


def marked_up() -> None:
    """A run every text of which is markup."""
    image_run(Path("run"), gate="routing_free")
    for name in ("result.json", "environment.json"):
        path = Path("run", name)
        if path.exists():
            path.write_text(json.dumps(with_markup(json.loads(path.read_text()), keep=("task", "kind"))))
    lines = [json.loads(one) for one in Path("run/metrics.jsonl").read_text().splitlines()]
    for one in lines:
        one["layers"] = {MARKUP + name: served for name, served in one.get("layers", {}).items()}
        one[MARKUP] = 1.0
    Path("run/metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    Path("run/config.yaml").write_text(
        json.dumps({"output": MARKUP, MARKUP: {"a": [MARKUP, ESCAPES, BIDI]}, "moe": MARKUP})
    )
    Path("run/classes.csv").write_text(
        'class,name,images,correct,accuracy\n"' + MARKUP.replace('"', '""') + '",<b>x,3,1,33\n'
    )
    for name in ("routing.npz", "routing_maps.npz"):
        with np.load(Path("run", name), allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
        for key in ("layers", "labels", "names", "left_out"):
            if key in found:
                found[key] = np.array([MARKUP + str(one) for one in found[key].tolist()], dtype=np.str_)
        np.savez(Path("run", name), **found)


def with_markup(value: Any, keep: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: inner if key in keep else with_markup(inner, keep) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_markup(inner, keep) for inner in value]
    return MARKUP + value + ESCAPES if isinstance(value, str) else value


def is_safe() -> None:
    """Every page that was written holds no element and no script but its own."""
    pages = [*Path("out").rglob("*.html")]
    assert pages, "no page"
    for path in pages:
        content = path.read_text(encoding="utf-8")
        page = HtmlPage(content)
        for tag, attributes in page.elements:
            assert not any(name.startswith("on") for name in attributes), f"<{tag} {attributes}>"
            where = str(attributes.get("src") or attributes.get("href") or "#")
            assert where.startswith(("#", "data:image/")), f"<{tag} {attributes}>"
        for kind in ("\x1b", "\x07", "\u202e", "\u2066"):
            assert kind not in content, f"a raw U+{ord(kind):04X}"
        assert all(
            "alert(1)" not in text
            for (tag, attributes), text in zip(page.elements, page.contents, strict=True)
            if tag == "script" and "type" not in attributes
        )


def page(what: str, make: Callable[[], object], *says: str, **options: Any) -> Hostile:
    """A run whose page is made all the same, and safe, whatever is left out of it."""
    return Hostile(what, make, REPORT, says, 0, OUT, is_safe, **options)


RESULTS = [
    Hostile("a result of 100,000 brackets", in_place_of("result.json", brackets), COMPARE, ("result.json",)),
    page("the same, for a page", in_place_of("result.json", brackets)),
    Hostile("a result that is a pipe", in_place_of("result.json", fifo), COMPARE, ("result.json",)),
    page("a result that is a pipe, for a page", in_place_of("result.json", fifo)),
    Hostile(
        "a result that is /dev/zero",
        in_place_of("result.json", lambda path: link("/dev/zero", path)),
        COMPARE,
        ("result.json",),
    ),
    Hostile(
        "a result of a terabyte",
        in_place_of("result.json", lambda path: sparse(path, 2**40)),
        COMPARE,
        ("result.json",),
    ),
    Hostile("a result that may not be read", run(lambda: Path("run/result.json").chmod(0)), COMPARE, ("result.json",)),
    Hostile("a result that is a list", text("result.json", "[1, 2]"), COMPARE, ("result.json", "mapping")),
    Hostile(
        "a result in UTF-16",
        run(lambda: Path("run/result.json").write_text("{}", encoding="utf-16")),
        COMPARE,
        ("result.json",),
    ),
    Hostile("a top-1 of 10⁴⁰⁰", result("top1", value=10**400), COMPARE, ("top1",)),
    Hostile(
        "a top-1 of 5,000 digits", text("result.json", '{"format": ' + "9" * 5000 + "}"), COMPARE, ("result.json",)
    ),
    Hostile("10⁴⁰⁰ parameters", result("params", value=10**400), PAGE, ("params",)),
    Hostile("a top-1 without end", result("top1", value=float("inf")), COMPARE, ("inf",), 0),
    Hostile("a top-1 that is a text of markup", result("top1", value=MARKUP + ESCAPES), COMPARE, ("top1",)),
    Hostile("a gate that colours the terminal", result("gate", value=ESCAPES), COMPARE, ("U+001B",), 0),
    Hostile("the same in Markdown", result("gate", value=ESCAPES), (*COMPARE, "--format", "markdown"), ("U+001B",), 0),
    Hostile("a gate of a megabyte", result("gate", value="x" * 2**20), COMPARE, ("gate",)),
    Hostile("a model of markup on a page of comparison", result("model", value=MARKUP), PAGE, (), 0, OUT, is_safe),
    Hostile("data nested 900 deep", result("data", value=json.loads("[" * 900 + "]" * 900)), PAGE, (), 0, OUT, is_safe),
    Hostile("a task that is none", result("task", value=ESCAPES), COMPARE, ("task is",)),
    Hostile("negative parameters", result("params", value=-5), COMPARE, (), 0),
    Hostile("a layer without a number", result("routing", "layers", 0, "entropy", value=None), COMPARE, ("entropy",)),
    page("a layer whose entropy is not a number", result("routing", "layers", 0, "entropy", value=float("nan"))),
    page("a layer of 10³⁰⁸", result("routing", "layers", 0, "load_cv", value=1e308)),
    page("a load of 10³⁰⁸", result("routing", "layers", 0, "load", value=[1e308, 1e308, -1e308, 0.0])),
    Hostile(
        "a layer of 200,000 experts", result("routing", "layers", 0, "load", value=[0.0] * 200_000), COMPARE, ("load",)
    ),
    page("counts of tokens below 0", result("routing", "layers", 0, "experts_per_token", value=[-1, 5, -3, 2, 2])),
    page("every text of a run markup", marked_up, seconds=20),
]

METRICS = [
    page("metrics that are a pipe", in_place_of("metrics.jsonl", fifo)),
    page("metrics of a terabyte", in_place_of("metrics.jsonl", lambda path: sparse(path, 2**40))),
    page("a line of ten megabytes", added("metrics.jsonl", line(x="y" * 10_000_000))),
    page("a line of 100,000 brackets", added("metrics.jsonl", "[" * 100_000 + "\n")),
    page(
        "numbers without end", added("metrics.jsonl", '{"kind": "train", "step": 50, "epoch": Infinity, "loss": NaN}\n')
    ),
    page("a loss of 10³⁰⁸ and one of -10³⁰⁸", added("metrics.jsonl", line(loss=1e308) + line(step=100, loss=-1e308))),
    page("a step of 10⁴⁰⁰", added("metrics.jsonl", line(step=10**400))),
    page("a step of 10¹⁸", added("metrics.jsonl", line(step=10**18))),
    page("a step below 0", added("metrics.jsonl", line(step=-(10**6)))),
    page("an epoch of 10⁴⁰⁰", added("metrics.jsonl", line(epoch=10**400))),
    page(
        "a layer of 200,000 experts in the metrics",
        added("metrics.jsonl", line(layers={"a": {"tokens": 1, "pairs": [1] * 200_000}})),
        seconds=20,
    ),
    page(
        "experts that come and go", added("metrics.jsonl", line(layers={"blocks.1.mlp": {"tokens": 5, "pairs": [1]}}))
    ),
    page(
        "10,000 names in a line",
        added("metrics.jsonl", line(**{f"n{number}": 1.0 for number in range(10_000)})),
        seconds=20,
    ),
    page(
        "10,000 layers in a line",
        added("metrics.jsonl", line(layers={f"l{n}": {"tokens": 1, "pairs": [1, 2]} for n in range(10_000)})),
        seconds=20,
    ),
    page("pairs that are texts", added("metrics.jsonl", line(layers={"a": {"tokens": 1, "pairs": ["1"]}}))),
    page("no line that is one", text("metrics.jsonl", "\x00\x1b[31m\n" * 100)),
]

ARRAYS = [
    page("counts that are a pickle", in_place_of("routing.npz", pickled_array)),
    page(
        "counts that are a plain pickle",
        in_place_of("routing.npz", lambda path: Path(path).write_bytes(pickle.dumps(Payload()))),
    ),
    page("counts of objects within an array", arrays("routing.npz", **{"0.pairs": lambda old: old.astype(object)})),
    page(
        "counts that inflate to eight gigabytes",
        in_place_of("routing.npz", inflating_array),
        alone=True,
        slow=True,
        seconds=60,
    ),
    page("counts that say they are 2⁴⁰", in_place_of("routing.npz", lying_array)),
    page("counts that are a pipe", in_place_of("routing.npz", fifo)),
    page("counts that are /dev/zero", in_place_of("routing.npz", lambda path: link("/dev/zero", path))),
    page("counts that are one array", in_place_of("routing.npz", one_array)),
    page("counts below 0", arrays("routing.npz", **{"0.pairs": lambda old: -old})),
    page(
        "counts that overflow",
        arrays(
            "routing.npz", **{"0.pairs": lambda old: old * 0 + 2**62, "0.pairs_by_label": lambda old: old * 0 + 2**62}
        ),
    ),
    page("a grid that overflows", arrays("routing.npz", **{"0.grid": np.array([1, 2**32, 2**32])})),
    page("counts without their labels", arrays("routing.npz", labels=np.array([], dtype=np.str_))),
    page("labels of a megabyte", arrays("routing.npz", labels=lambda old: np.array(["x" * 10**6] * len(old)))),
    page("a layer twice", arrays("routing.npz", layers=lambda old: np.array([old[0]] * len(old)))),
    page("maps that are a pickle", in_place_of("routing_maps.npz", pickled_array)),
    page(
        "maps that are cut",
        run(lambda: Path("run/routing_maps.npz").write_bytes(Path("run/routing_maps.npz").read_bytes()[:500])),
    ),
    page("maps of weights that are no numbers", arrays("routing_maps.npz", **{"0.weights": lambda old: old * np.nan})),
    page("maps of a million favourites", arrays("routing_maps.npz", favourites=np.array(10**6))),
    page(
        "maps of images of a gigabyte",
        arrays("routing_maps.npz", images=lambda old: np.zeros((len(old), 6000, 6000, 3), np.uint8)),
        alone=True,
        seconds=30,
        slow=True,
    ),
    page(
        "maps by a name that leads away",
        arrays("routing_maps.npz", layers=lambda old: np.array([f"../../{name}" for name in old])),
    ),
]

OTHERS = [
    page("a config of laughs", text("config.yaml", "a: &a [1]\nb: [*a, *a]\n")),
    page(
        "a config that calls os.system", text("config.yaml", "a: !!python/object/apply:os.system ['touch code_ran']\n")
    ),
    page("a config of 40,000 braces", text("config.yaml", "{" * 40_000)),
    page("a config of 20,000 dashes", text("config.yaml", "- " * 20_000)),
    page("a config of 20,000 question marks", text("config.yaml", "? " * 20_000)),
    page("a config of numbers that cannot be written", text("config.yaml", "seed: 0x" + "f" * 9000 + "\n")),
    page("a config of keys that are lists", text("config.yaml", "? [a, b]\n: 1\nmodel: {name: {a: b}}\n")),
    page("a config that is a pipe", in_place_of("config.yaml", fifo)),
    page("a config of a terabyte", in_place_of("config.yaml", lambda path: sparse(path, 2**40))),
    page("an environment of 100,000 brackets", in_place_of("environment.json", brackets)),
    page(
        "an environment of laughs",
        text("environment.json", json.dumps({"packages": {f"p{n}": [[MARKUP] * 9] * 9 for n in range(99)}})),
    ),
    page("an environment that is a pipe", in_place_of("environment.json", fifo)),
    page("classes that are a pipe", in_place_of("classes.csv", fifo)),
    page(
        "a class of a megabyte",
        text("classes.csv", "class,name,images,correct,accuracy\n" + "x" * 2**20 + ",a,3,1,33\n"),
    ),
    page("a class of 10⁴⁰⁰ images", text("classes.csv", f"class,name,images,correct,accuracy\na,a,{10**400},1,33\n")),
    Hostile("a run that is a pipe", lambda: fifo("run"), REPORT, ("run",)),
    Hostile("a run of no file", lambda: Path("run").mkdir(), REPORT, ("run",)),
    Hostile("a run that may not be read", run(lambda: Path("run").chmod(0)), COMPARE, ("run",)),
    Hostile("a run whose name is no UTF-8", run(lambda: Path("run").rename("r\udcff")), ("compare", "r\udcff"), (), 0),
    Hostile(
        "a run whose name colours the terminal",
        run(lambda: Path("run").rename(ESCAPES)),
        ("compare", ESCAPES),
        ("U+001B",),
        0,
    ),
]

REPORTS = [*RESULTS, *METRICS, *ARRAYS, *OTHERS]

REAL = [
    Hostile(
        f"real labels: {what}",
        make,
        ("eval", "good/runs/tiny/checkpoints/last.pt", "--real", "real.json", "--output", "out"),
        ("--real",),
    )
    for what, make in {
        "brackets": lambda: brackets("real.json"),
        "a pipe": lambda: fifo("real.json"),
        "a terabyte": lambda: sparse("real.json", 2**40),
    }.items()
]
