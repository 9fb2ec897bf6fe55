"""YAML that is a bomb, a program, or nothing that a config holds; and overrides of the same kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hostile_case import BIDI, ESCAPES, Hostile, fifo, link, sparse
from world import CONFIG

TRAIN = ("train", "x.yaml")
SET = ("train", "good/tiny.yaml", "output=new")


def brackets(path: str, number: int = 100_000) -> None:
    Path(path).write_text("[" * number)


def yaml(text: str) -> Callable[[], object]:
    return lambda: Path("x.yaml").write_text(text)


def content(data: bytes) -> Callable[[], object]:
    return lambda: Path("x.yaml").write_bytes(data)


def with_line(line: str) -> Callable[[], object]:
    """A good config with a line more."""
    return yaml(f"{CONFIG}{line}\n")


def laughs() -> str:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    return "\n".join(lines)


def bases(number: int) -> None:
    """A chain of configs, each with the next one as its base."""
    for n in range(number):
        Path(f"{n}.yaml").write_text(f"base: {n + 1}.yaml")
    Path(f"{number}.yaml").write_text("seed: 1")
    Path("0.yaml").rename("x.yaml")


def circle() -> None:
    for here, there in (("x", "y"), ("y", "z"), ("z", "x")):
        Path(f"{here}.yaml").write_text(f"base: {there}.yaml")


def nothing() -> None:
    """All that is hostile is in the command."""


CONFIGS = [
    Hostile("a billion laughs", yaml(laughs()), TRAIN, ("x.yaml", "alias")),
    Hostile("a list that holds itself", yaml("a: &a [*a]"), TRAIN, ("x.yaml", "alias")),
    Hostile(
        "a tag that calls os.system", yaml("a: !!python/object/apply:os.system ['touch code_ran']"), TRAIN, ("x.yaml",)
    ),
    Hostile(
        "a tag that makes an object",
        yaml("seed: !!python/object:subprocess.Popen {args: 'touch code_ran'}"),
        TRAIN,
        ("x.yaml",),
    ),
    Hostile(
        "the same, for doctor",
        yaml("a: !!python/object/new:os.system ['touch code_ran']"),
        ("doctor", "x.yaml"),
        ("x.yaml", "python/object"),
        1,
        slow=True,
        seconds=60,
    ),
    Hostile("an unknown tag", with_line("seed: !evil 1"), TRAIN, ("x.yaml", "!evil")),
    Hostile("bytes", with_line("seed: !!binary aGVsbG8="), TRAIN, ("x.yaml", "binary")),
    Hostile("a set", with_line("seed: !!set {a, b}"), TRAIN, ("x.yaml", "2002:set")),
    Hostile("a date", with_line("seed: !!timestamp 2020-01-01"), TRAIN, ("x.yaml", "timestamp")),
    Hostile("1e400", with_line("optimizer: {lr: 1e400}"), TRAIN, ("optimizer.lr", "finite")),
    Hostile("not a number", with_line("optimizer: {lr: .nan}"), TRAIN, ("optimizer.lr", "finite")),
    Hostile("5,000 digits", with_line("seed: " + "9" * 5000), TRAIN, ("x.yaml",)),
    Hostile("4,000 digits", with_line("seed: " + "9" * 4000), TRAIN, ("seed",)),
    Hostile("4,000 digits for a rate", with_line("optimizer: {lr: " + "9" * 4000 + "}"), TRAIN, ("optimizer.lr",)),
    Hostile("a text of 100,000 characters", with_line("seed: '" + "x" * 100_000 + "'"), TRAIN, ("seed",)),
    Hostile("a key of 100,000 characters", with_line("? " + "x" * 100_000 + "\n: 1"), TRAIN, ("x.yaml",)),
    Hostile("a key twice", with_line("seed: 1\nseed: 2"), TRAIN, ("seed stands twice",)),
    Hostile("a key that is a list", with_line("? [a]\n: 1"), TRAIN, ("x.yaml",)),
    Hostile("a key that is a tag's", with_line("<<: {seed: 1}"), TRAIN, ("x.yaml",)),
    Hostile(
        "12,000 keys", yaml("\n".join(f"k{n}: 1" for n in range(12_000))), TRAIN, ("x.yaml",), alone=True, seconds=20
    ),
    Hostile("100,000 brackets", lambda: brackets("x.yaml"), TRAIN, ("x.yaml",), alone=True),
    Hostile("130,000 brackets", lambda: brackets("x.yaml", 130_000), TRAIN, ("x.yaml",), alone=True),
    Hostile("100,000 braces", yaml("{" * 100_000), TRAIN, ("x.yaml",), alone=True),
    Hostile("30,000 braces with keys", yaml("{a: " * 30_000), TRAIN, ("x.yaml",), alone=True),
    Hostile("60,000 dashes", yaml("- " * 60_000), TRAIN, ("x.yaml",), alone=True),
    Hostile("60,000 question marks", yaml("? " * 60_000), TRAIN, ("x.yaml",), alone=True),
    Hostile("mappings 450 deep", yaml("\n".join(" " * n + "a:" for n in range(450))), TRAIN, ("x.yaml",), alone=True),
    Hostile("a BOM", content(b"\xef\xbb\xbf" + CONFIG.encode() + b"seed: x"), TRAIN, ("seed is 'x'",)),
    Hostile("UTF-16", content(CONFIG.encode("utf-16")), TRAIN, ("x.yaml",)),
    Hostile("random bytes", content(bytes(range(256)) * 9), TRAIN, ("x.yaml",)),
    Hostile("zeros", content(bytes(999)), TRAIN, ("x.yaml",)),
    Hostile("nothing at all", content(b""), TRAIN, ("x.yaml",)),
    Hostile("a key that colours the terminal", with_line(r'"\e[31mseed\a": 1'), TRAIN, ("U+001B",)),
    Hostile("a value that turns the line around", with_line(f"seed: {BIDI}"), TRAIN, ("seed is",)),
    Hostile("a config of two megabytes", yaml("#" * 2**21), TRAIN, ("x.yaml", "bytes")),
    Hostile("a config of a terabyte", lambda: sparse("x.yaml", 2**40), TRAIN, ("x.yaml", "bytes"), alone=True),
    Hostile("a pipe", lambda: fifo("x.yaml"), TRAIN, ("x.yaml", "a pipe")),
    Hostile(
        "a pipe, for doctor",
        lambda: fifo("x.yaml"),
        ("doctor", "x.yaml"),
        ("x.yaml", "a pipe"),
        1,
        slow=True,
        seconds=60,
    ),
    Hostile("a pipe, for bench-data", lambda: fifo("x.yaml"), ("bench-data", "x.yaml"), ("x.yaml", "a pipe")),
    Hostile(
        "a pipe to upcycle to",
        lambda: fifo("x.yaml"),
        ("upcycle", "good/runs/dense/checkpoints/last.pt", "--to", "x.yaml"),
        ("a pipe",),
    ),
    Hostile("/dev/zero", lambda: link("/dev/zero", "x.yaml"), TRAIN, ("x.yaml", "a device"), alone=True),
    Hostile("a folder", lambda: Path("x.yaml").mkdir(), TRAIN, ("x.yaml",)),
    Hostile("a link to itself", lambda: link("x.yaml", "x.yaml"), TRAIN, ("x.yaml",)),
    Hostile("a config that may not be read", lambda: (yaml(CONFIG)(), Path("x.yaml").chmod(0)), TRAIN, ("x.yaml",)),
    Hostile("bases in a circle", circle, TRAIN, ("base leads back to itself",)),
    Hostile("2,000 bases one after another", lambda: bases(2000), TRAIN, ("base",)),
    Hostile("a base that is a list", yaml("base: [a, b]"), TRAIN, ("base is",)),
    Hostile("a base that is a pipe", lambda: (fifo("p.yaml"), yaml("base: p.yaml")()), TRAIN, ("p.yaml", "a pipe")),
    Hostile("an override 3,000 levels deep", nothing, (*SET, ".".join("a" * 3000) + "=1"), ("override",)),
    Hostile("an override of 100,000 brackets", nothing, (*SET, "seed=" + "[" * 100_000), ("override",), alone=True),
    Hostile("an override of 5,000 digits", nothing, (*SET, "seed=" + "9" * 5000), ("override",)),
    Hostile("an override by a tag", nothing, (*SET, "seed=!!python/name:os.system"), ("override",)),
    Hostile("an override that holds itself", nothing, (*SET, "seed=&a [*a]"), ("alias",)),
    Hostile("an override that colours the terminal", nothing, (*SET, f"seed={ESCAPES}"), ("override",)),
    Hostile("an override that is no UTF-8", nothing, (*SET, "model.name=\udcff"), ("override",)),
    Hostile(
        "10⁹ experts, to train", nothing, (*SET, "moe.num_experts=1000000000"), ("the model is too large",), alone=True
    ),
    Hostile(
        "experts 10⁹ wide, to train",
        nothing,
        (*SET, "moe.experts={kind: mlp, hidden: 1000000000}"),
        ("the model is too large",),
        alone=True,
    ),
    Hostile(
        "10⁹ experts, to upcycle to",
        nothing,
        (
            "upcycle",
            "good/runs/dense/checkpoints/last.pt",
            "--to",
            "good/tiny.yaml",
            "--set",
            "moe.num_experts=1000000000",
            "--output",
            "new.pt",
        ),
        ("the model is too large",),
        alone=True,
    ),
    Hostile(
        "a million blocks, to train",
        nothing,
        (*SET, "model.kwargs.depth=1000000"),
        ("the model is too large",),
        alone=True,
        seconds=120,
        slow=True,
    ),
    Hostile("10¹⁰⁰ blocks, to train", nothing, (*SET, "model.kwargs.depth=1" + "0" * 100), ("model.kwargs.depth",)),
    Hostile("images of 10⁶ pixels a side", nothing, (*SET, "data.image_size=1000000"), ("data.image_size",)),
    Hostile(
        "weights from a file of timm's", nothing, (*SET, "model.kwargs.checkpoint_path=evil.pth"), ("checkpoint_path",)
    ),
    Hostile(
        "attention from the hub",
        nothing,
        ("train", "good/text.yaml", "output=new", "model.kwargs.attn_implementation=evil/kernels"),
        ("attn_implementation",),
    ),
]
