"""Image folders, .beton and token files, their sidecars, and labels, that are broken or made to do harm."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_case import BIDI, ESCAPES, MARKUP, Hostile, fifo, link, sparse
from hostile_configs import brackets
from PIL import Image

TINY = ("train", "good/tiny.yaml", "output=new")
FOLDER = (*TINY, "data.train=x", "data.val=x", "data.batch_size=2")
WRITE = ("write", "x", "new.beton", "--workers", "1")
EVAL = ("eval", "good/runs/tiny/checkpoints/last.pt", "--data", "x", "--output", "out")
INSPECT = ("inspect", "good/runs/tiny/checkpoints/last.pt", "x/dark", "--output", "out/page.html")
RAN = ("new", "new/*")
OUT = ("out", "out/*")
FFCV = ("data.loader=ffcv", "data.train=x.beton", "data.val=x.beton")
BETON = (*TINY, *FFCV)
VERIFY = ("verify", "x.beton")
BENCH = ("bench-data", "good/tiny.yaml", "--no-model", "--seconds", "1")


# --- image folders --------------------------------------------------------------------------------------


def images(change: Callable[[], object]) -> Callable[[], None]:
    """Makes a good folder x of two classes of two images, but for what `change` does in it."""

    def make() -> None:
        for name in ("dark", "light"):
            Path("x", name).mkdir(parents=True)
            for number in range(2):
                shutil.copy(f"good/images/val/{name}/{number}.png", f"x/{name}/{number}.png")
        change()

    return make


def file(content: bytes, path: str = "x/dark/a.png") -> Callable[[], None]:
    return images(lambda: Path(path).write_bytes(content))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A grey PNG that says it has that size, whatever its data are."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def saved(suffix: str, **options: Any) -> bytes:
    """A small image as PIL writes it."""
    path = Path(f"saved.{suffix}")
    image = options.pop("image", Image.new("RGB", (16, 12), (90, 160, 30)))
    image.save(path, **options)
    content = path.read_bytes()
    path.unlink()
    return content


def odd_images() -> None:
    """What cameras and tools make, and what must be read."""
    rgb = Image.effect_noise((16, 12), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, MARKUP
    Path("x/dark/cmyk.jpg").write_bytes(saved("jpg", image=rgb.convert("CMYK")))
    Path("x/dark/grey.jpg").write_bytes(saved("jpg", image=rgb.convert("L")))
    Path("x/dark/turned.jpg").write_bytes(saved("jpg", image=rgb, exif=exif))
    Path("x/dark/palette.png").write_bytes(saved("png", image=rgb.convert("P"), transparency=3))
    Path("x/dark/alpha.png").write_bytes(saved("png", image=rgb.convert("LA")))
    Path("x/dark/one_bit.png").write_bytes(saved("png", image=rgb.convert("1")))
    Path("x/dark/animated.png").write_bytes(saved("gif", save_all=True, append_images=[rgb] * 3))
    Path("x/dark/one_pixel.png").write_bytes(saved("png", image=rgb.crop((0, 0, 1, 1))))
    Path("x/dark/thin.png").write_bytes(saved("png", image=rgb.resize((300, 1))))
    Path("x/dark/lossless.webp").write_bytes(saved("webp", image=rgb, lossless=True))
    Path("x/dark/jpeg_called.png").write_bytes(saved("jpg", image=rgb))


def tree_of_links() -> None:
    """Thirty folders, each with two links to the next: 2³⁰ ways to the one image."""
    for level in range(30):
        Path(f"deep/{level}").mkdir(parents=True)
        for name in ("a", "b"):
            link(f"../{level + 1}", f"deep/{level}/{name}")
    shutil.copytree("x/dark", "deep/30")
    link("../../deep/0", "x/dark/links")


def long_path() -> None:
    """1,500 folders within each other: longer than a recursion may be deep, and a path long."""
    here = os.getcwd()
    os.chdir("x/dark")
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    shutil.copy(f"{here}/x/light/0.png", "deep.png")
    os.chdir(here)


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(code_ran) (w) file closefile\n%%EOF\n"


FOLDERS = [
    Hostile("an image of no byte", file(b""), FOLDER, ("x/dark/a.png",), leaves=RAN),
    Hostile("an image of no byte, to write", file(b""), WRITE, ("x/dark/a.png",)),
    Hostile("a text called .jpg", file(b"hello " * 99, "x/dark/a.jpg"), WRITE, ("x/dark/a.jpg",)),
    Hostile("a page called .jpg", file(MARKUP.encode(), "x/dark/a.jpg"), INSPECT, ("x/dark/a.jpg",)),
    Hostile("a program for the printer called .jpg", file(eps(), "x/dark/a.jpg"), INSPECT, ("x/dark/a.jpg",)),
    Hostile(
        "a JPEG cut in half", images(lambda: Path("x/dark/a.jpg").write_bytes(saved("jpg")[:300])), WRITE, ("a.jpg",)
    ),
    Hostile("a PNG of 30,000 × 30,000 pixels", file(png(30000, 30000)), WRITE, ("x/dark/a.png", "pixels"), alone=True),
    Hostile("the same to inspect", file(png(30000, 30000)), INSPECT, ("x/dark/a.png", "pixels"), alone=True),
    Hostile("a PNG of 2³¹ pixels a side", file(png(2**31 - 1, 2**31 - 1)), EVAL, ("x/dark/a.png",), alone=True),
    Hostile("a PNG that says 9,000 × 9,000 and has none", file(png(9000, 9000)), WRITE, ("x/dark/a.png",), alone=True),
    Hostile(
        "a PNG with a text of a gigabyte",
        images(
            lambda: Path("x/dark/a.png").write_bytes(
                png(8, 8, bytes(72), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**28), 9)))
            )
        ),
        WRITE,
        ("x/dark/a.png",),
        alone=True,
        slow=True,
    ),
    Hostile("16 bits a channel", images(lambda: Image.new("I;16", (8, 8)).save("x/dark/a.png")), WRITE, ("8 bits",)),
    Hostile("images of every oddity that is one", images(odd_images), INSPECT, ("out/page.html",), 0, OUT),
    Hostile("a folder within itself", images(lambda: link(".", "x/dark/loop")), FOLDER, ("x/dark/loop",)),
    Hostile(
        "two folders within each other",
        images(lambda: (link("../light", "x/dark/l"), link("../dark", "x/light/d"))),
        WRITE,
        ("x/",),
    ),
    Hostile("2³⁰ ways to one image", images(tree_of_links), WRITE, ("x/dark",), alone=True),
    Hostile("a link to nothing", images(lambda: link("nowhere.png", "x/dark/a.png")), WRITE, ("x/dark/a.png",)),
    Hostile("a link to itself", images(lambda: link("a.png", "x/dark/a.png")), EVAL, ("x/dark/a.png",)),
    Hostile("a pipe called .jpg", images(lambda: fifo("x/dark/a.jpg")), WRITE, ("x/dark/a.jpg", "a pipe"), alone=True),
    Hostile("a pipe called .jpg, to inspect", images(lambda: fifo("x/dark/a.jpg")), INSPECT, ("a.jpg", "a pipe")),
    Hostile("a pipe called .jpg, to train on", images(lambda: fifo("x/dark/a.jpg")), FOLDER, ("a pipe",), leaves=RAN),
    Hostile(
        "a pipe called .jpg, to time",
        images(lambda: fifo("x/dark/a.jpg")),
        (*BENCH, "data.train=x", "data.val=x", "data.batch_size=2"),
        ("a pipe",),
    ),
    Hostile("/dev/zero called .png", images(lambda: link("/dev/zero", "x/dark/a.png")), WRITE, ("a device",)),
    Hostile("a folder called .png", images(lambda: Path("x/dark/a.png").mkdir()), INSPECT, (), 0, OUT),
    Hostile("an image that may not be read", images(lambda: Path("x/dark/0.png").chmod(0)), WRITE, ("x/dark/0.png",)),
    Hostile("a class that may not be read", images(lambda: Path("x/dark").chmod(0)), WRITE, ("x",)),
    Hostile("a pipe for the folder", lambda: fifo("x"), WRITE, ("x",)),
    Hostile(
        "an image whose name has two lines", file(b"", "x/dark/a\nvmoe write: all is well.png"), WRITE, ("U+000A",)
    ),
    Hostile("an image whose name colours the terminal", file(b"", f"x/dark/{ESCAPES}.png"), WRITE, ("U+001B",)),
    Hostile("an image whose name turns the line around", file(b"", f"x/dark/{BIDI}.png"), EVAL, ("U+202E",)),
    Hostile(
        "an image whose name is no UTF-8",
        images(lambda: Path(os.fsdecode(b"x/dark/\xff\xfe.png")).touch()),
        WRITE,
        ("U+DCFF",),
    ),
    Hostile(
        "a class whose name colours the terminal",
        images(lambda: Path("x/dark").rename(f"x/{ESCAPES}")),
        EVAL,
        ("U+001B",),
    ),
    Hostile(
        "class names of markup",
        images(lambda: Path("x/dark").rename("x/<img src=x onerror=alert(1)>")),
        WRITE,
        ("2 classes",),
        0,
        ("new.beton*",),
    ),
    Hostile("an empty class", images(lambda: Path("x/none").mkdir()), WRITE, ("x", "none")),
    Hostile("a folder 1,500 folders deep", images(long_path), EVAL, ("top-1",), 0, OUT),
    Hostile("a --csv that is a pipe", images(lambda: fifo("t.csv")), (*EVAL, "--csv", "t.csv"), ("t.csv",)),
    Hostile(
        "a --csv with a cell of a megabyte",
        lambda: Path("t.csv").write_text("checkpoint,data,set,classes,flip\n" + "x" * 2**20),
        ("eval", EVAL[1], "--csv", "t.csv"),
        ("t.csv",),
    ),
]


# --- .beton files ---------------------------------------------------------------------------------------


def beton(change: Callable[[bytearray], object], name: str = "good", *, sidecar: bool = False) -> Callable[[], None]:
    """Makes x.beton: a good file but for what `change` does to its bytes."""

    def make() -> None:
        content = bytearray(Path(f"good/{name}.beton").read_bytes())
        change(content)
        Path("x.beton").write_bytes(content)
        if sidecar:
            shutil.copy(f"good/{name}.beton.json", "x.beton.json")

    return make


# FFCV's header: version u2, fields u2, page size u4, samples u8, allocation table u8; then a descriptor a field, and
# for each sample an entry of its image (data u8, mode u1, height u2, width u2 in FFCV's order) and its label.
HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("table", "<u8")], align=True
)


def header(**values: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        found = np.frombuffer(content, HEADER, 1)
        for name, value in values.items():
            found[name] = value

    return change


def entry(**values: int) -> Callable[[bytearray], None]:
    """Changes what the index says of the first image."""

    def change(content: bytearray) -> None:
        from ffcv.reader import Reader

        Path("whole.beton").write_bytes(content)
        reader = Reader("whole.beton")
        Path("whole.beton").unlink()
        start = HEADER.itemsize + reader.field_descriptors.nbytes
        first = np.frombuffer(content, reader.metadata_type, 1, start)
        for name, value in values.items():
            if name == "label":
                first["f1"][...] = value
            else:
                first["f0"][name] = value

    return change


def sidecar(**values: Any) -> Callable[[], None]:
    """Makes x.beton, whose sidecar has other values."""

    def make() -> None:
        shutil.copy("good/good.beton", "x.beton")
        found = json.loads(Path("good/good.beton.json").read_text())
        Path("x.beton.json").write_text(json.dumps({**found, **values}))

    return make


BETONS = [
    *[
        Hostile(
            f"a .beton file cut at {part} %",
            beton(lambda all_, n=part: all_.__delitem__(slice(len(all_) * n // 100, None))),
            BETON,
            ("x.beton",),
        )
        for part in (0, 1, 10, 50, 90, 99)
    ],
    Hostile("2⁶⁰ samples", beton(header(samples=2**60)), BETON, ("x.beton",), alone=True),
    Hostile("no sample", beton(header(samples=0)), BETON, ("x.beton",)),
    Hostile("fewer samples than there are", beton(header(samples=7)), BETON, ("x.beton",)),
    Hostile("60,000 fields", beton(header(fields=60000)), BETON, ("x.beton",), alone=True),
    Hostile("no field", beton(header(fields=0)), BETON, ("x.beton",)),
    Hostile("another version", beton(header(version=9)), BETON, ("x.beton",)),
    Hostile("a table behind the end", beton(header(table=2**62)), BETON, ("x.beton",), alone=True),
    Hostile("a table at the beginning", beton(header(table=0)), BETON, ("x.beton",)),
    Hostile(
        "an image of 65,535 × 65,535 pixels", beton(entry(height=65535, width=65535)), BETON, ("x.beton", "pixels")
    ),
    Hostile(
        "a JPEG of 65,535 × 65,535 pixels", beton(entry(height=65535, width=65535), "jpg"), BETON, ("x.beton", "pixels")
    ),
    Hostile("an image of no height", beton(entry(height=0)), BETON, ("x.beton", "pixels")),
    Hostile("a JPEG of no width", beton(entry(width=0), "jpg"), BETON, ("x.beton", "pixels")),
    Hostile("an image behind the end", beton(entry(data_ptr=2**63 + 5)), BETON, ("x.beton",)),
    Hostile("an image in the header", beton(entry(data_ptr=3)), BETON, ("x.beton",)),
    Hostile("an image stored in an unknown way", beton(entry(mode=7)), BETON, ("x.beton",)),
    Hostile(
        "a JPEG said to be pixels",
        beton(entry(mode=1), "jpg"),
        BETON,
        ("x.beton", "image 0"),
        leaves=RAN,
        slow=True,
        seconds=60,
    ),
    Hostile(
        "a JPEG said to be larger than it is",
        beton(entry(height=300, width=300), "jpg"),
        BETON,
        ("top-1",),
        0,
        leaves=RAN,
        alone=True,
        slow=True,
        seconds=60,
    ),
    Hostile(
        "a JPEG said to be smaller than it is",
        beton(entry(height=2, width=2), "jpg"),
        BETON,
        ("top-1",),
        0,
        leaves=RAN,
        alone=True,
        slow=True,
        seconds=60,
    ),
    Hostile("a negative label", beton(entry(label=-1)), BETON, ("x.beton", "label -1")),
    Hostile("a label of 10¹²", beton(entry(label=10**12)), BETON, ("x.beton", "label")),
    Hostile("a label beyond the sidecar's", beton(entry(label=2), sidecar=True), BETON, ("x.beton", "label 2")),
    Hostile("a terabyte called .beton", lambda: sparse("x.beton", 2**40), BETON, ("x.beton",), alone=True),
    Hostile("a pipe called .beton", lambda: fifo("x.beton"), BETON, ("x.beton", "a pipe")),
    Hostile("a pipe called .beton, to verify", lambda: fifo("x.beton"), VERIFY, ("x.beton", "a pipe")),
    Hostile("/dev/zero called .beton", lambda: link("/dev/zero", "x.beton"), VERIFY, ("x.beton", "a device")),
    Hostile(
        "a .beton file that may not be read", lambda: (beton(bytes)(), Path("x.beton").chmod(0)), VERIFY, ("x.beton",)
    ),
    Hostile("a link that leads to itself", lambda: link("x.beton", "x.beton"), VERIFY, ("x.beton",)),
    Hostile(
        "a sidecar that is a pipe", lambda: (beton(bytes)(), fifo("x.beton.json")), VERIFY, ("x.beton.json", "a pipe")
    ),
    Hostile(
        "a sidecar that is /dev/zero", lambda: (beton(bytes)(), link("/dev/zero", "x.beton.json")), BETON, ("a device",)
    ),
    Hostile(
        "a sidecar of a gigabyte",
        lambda: (beton(bytes)(), sparse("x.beton.json", 2**30)),
        VERIFY,
        ("x.beton.json", "bytes"),
    ),
    Hostile(
        "a sidecar of 100,000 brackets", lambda: (beton(bytes)(), brackets("x.beton.json")), VERIFY, ("x.beton.json",)
    ),
    Hostile("a sidecar of negative samples", sidecar(samples=-1), VERIFY, ("x.beton",)),
    Hostile("a sidecar of 10⁴⁰⁰⁰ bytes", sidecar(bytes=10**4000), VERIFY, ("x.beton",)),
    Hostile("a sidecar of another digest", sidecar(sha256=ESCAPES), VERIFY, ("SHA-256",)),
    Hostile("a sidecar with a key more", sidecar(**{ESCAPES: 1}), VERIFY, ("x.beton.json", "U+001B")),
    Hostile("a sidecar without classes", sidecar(classes=[]), BETON, ("x.beton", "classes")),
    Hostile("a sidecar with a class twice", sidecar(classes=["a", "a"]), BETON, ("x.beton", "twice")),
    Hostile(
        "a sidecar with other classes than the model",
        sidecar(classes=["a", BIDI]),
        ("eval", EVAL[1], "--data", "x.beton", "--output", "out"),
        ("U+202E",),
    ),
    Hostile(
        "three classes for a model of two",
        sidecar(classes=["dark", "light", "red"]),
        ("eval", EVAL[1], "--data", "x.beton", "--output", "out"),
        ("red",),
    ),
]


# --- token files ----------------------------------------------------------------------------------------

TEXT = ("train", "good/text.yaml", "output=new", "data.train=x.tokens", "data.val=x.tokens")
TEXT_EVAL = ("eval", "good/runs/text/checkpoints/last.pt", "--data", "x.tokens", "--output", "out")


def tokens(content: Callable[[bytes], bytes] = bytes, **values: Any) -> Callable[[], None]:
    """Makes x.tokens of other bytes, and a sidecar of other values; its size is right where none is given."""

    def make() -> None:
        Path("x.tokens").write_bytes(new := content(Path("good/val.tokens").read_bytes()))
        found = json.loads(Path("good/val.tokens.json").read_text())
        found |= {"bytes": len(new), "tokens": len(new) // 2, **values}
        Path("x.tokens.json").write_text(json.dumps(found))

    return make


def cut_tokens(part: int) -> None:
    content = Path("good/val.tokens").read_bytes()
    Path("x.tokens").write_bytes(content[: len(content) * part // 10])
    shutil.copy("good/val.tokens.json", "x.tokens.json")


TOKENS = [
    *[
        Hostile(f"tokens cut at {part}0 %", lambda n=part: cut_tokens(n), TEXT_EVAL, ("x.tokens",))
        for part in (0, 3, 9)
    ],
    Hostile("no token", tokens(lambda all_: b""), TEXT_EVAL, ("x.tokens", "0 tokens")),
    Hostile("one token", tokens(lambda all_: all_[:2]), TEXT_EVAL, ("x.tokens", "1 tokens")),
    Hostile("half a token", tokens(lambda all_: all_[:-1]), TEXT_EVAL, ("x.tokens",)),
    Hostile("tokens that the vocabulary lacks", tokens(lambda all_: b"\xff" * len(all_)), TEXT_EVAL, ("65535",)),
    Hostile(
        "a token that the vocabulary lacks, at the end",
        tokens(lambda all_: all_[:-2] + b"\x01\x01"),
        TEXT,
        ("257",),
        leaves=RAN,
    ),
    Hostile("tokens said to be twice as wide", tokens(dtype="uint32"), TEXT_EVAL, ("x.tokens",)),
    Hostile("an unknown type of tokens", tokens(dtype="O"), TEXT_EVAL, ("x.tokens.json", "dtype")),
    Hostile("a vocabulary of 10¹²", tokens(vocab_size=10**12), TEXT, ("x.tokens",), alone=True),
    Hostile("a vocabulary of 100", tokens(vocab_size=100), TEXT_EVAL, ("x.tokens",)),
    Hostile("a text of no byte", tokens(text_bytes=0), TEXT_EVAL, ("x.tokens", "text_bytes")),
    Hostile("a text of no word", tokens(words=0), TEXT_EVAL, ("perplexity",), 0, OUT),
    Hostile("a text of 10⁴⁰⁰ bytes", tokens(text_bytes=10**400), TEXT_EVAL, ("x.tokens", "text_bytes")),
    Hostile("10¹⁸ words", tokens(words=10**18), TEXT_EVAL, ("x.tokens", "words")),
    Hostile("a tokenizer of another kind", tokens(tokenizer={"kind": ESCAPES}), TEXT_EVAL, ("tokenizer",)),
    Hostile("an end of text outside the vocabulary", tokens(end_of_text=10**9), TEXT_EVAL, ("x.tokens", "end_of_text")),
    Hostile(
        "tokens whose sidecar is a pipe",
        lambda: (tokens()(), Path("x.tokens.json").unlink(), fifo("x.tokens.json")),
        TEXT,
        ("a pipe",),
    ),
    Hostile(
        "tokens that are a pipe", lambda: (tokens()(), Path("x.tokens").unlink(), fifo("x.tokens")), TEXT, ("a pipe",)
    ),
    Hostile(
        "nanoGPT's tokens that are a pipe",
        lambda: fifo("x.bin"),
        (*TEXT[:3], "data.train=x.bin", "data.val=x.bin"),
        ("a pipe",),
    ),
    Hostile("another digest", tokens(sha256="00"), ("verify", "x.tokens"), ("SHA-256",)),
    Hostile(
        "a text that is a pipe",
        lambda: fifo("x.txt"),
        ("tokens", "x.txt", "new.tokens", "--tokenizer", "bytes"),
        ("x.txt", "a pipe"),
        alone=True,
    ),
    Hostile(
        "a text that is /dev/zero",
        lambda: link("/dev/zero", "x.txt"),
        ("tokens", "x.txt", "new.tokens", "--tokenizer", "bytes"),
        ("x.txt", "a device"),
        alone=True,
    ),
    Hostile(
        "a text that is no UTF-8",
        lambda: Path("x.txt").write_bytes(b"a\xed\xa0\x80"),
        ("tokens", "x.txt", "new.tokens", "--tokenizer", "bytes"),
        ("x.txt", "byte 1"),
    ),
    Hostile(
        "a vocabulary that is a pipe",
        lambda: (fifo("v/vocab.bpe"), fifo("v/encoder.json"), Path("x.txt").write_text("a")),
        ("tokens", "x.txt", "new.tokens", "--vocabulary", "v"),
        ("v/encoder.json",),
    ),
    Hostile(
        "a vocabulary of a terabyte",
        lambda: (
            Path("v").mkdir(),
            sparse("v/vocab.bpe", 2**40),
            sparse("v/encoder.json", 2**40),
            Path("x.txt").write_text("a"),
        ),
        ("tokens", "x.txt", "new.tokens", "--vocabulary", "v"),
        ("v/encoder.json",),
        alone=True,
    ),
    Hostile(
        "a text to inspect that is a pipe",
        lambda: fifo("x.txt"),
        ("inspect", TEXT_EVAL[1], "--text", "x.txt", "--output", "out/page.html"),
        ("x.txt",),
    ),
    Hostile(
        "a text to inspect of a terabyte",
        lambda: sparse("x.txt", 2**40),
        ("inspect", TEXT_EVAL[1], "--text", "x.txt", "--output", "out/page.html"),
        ("x.txt",),
        alone=True,
    ),
    Hostile(
        "a text of controls and markup, to inspect",
        lambda: Path("x.txt").write_text(ESCAPES + BIDI + MARKUP),
        ("inspect", TEXT_EVAL[1], "--text", "x.txt", "--output", "out/page.html"),
        ("out/page.html",),
        0,
        OUT,
    ),
]

DATA = [*FOLDERS, *BETONS, *TOKENS]
