"""Checkpoints that run code, lie about themselves, or are damaged; over all commands that read them."""

from __future__ import annotations

import copy
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile_case import BIDI, ESCAPES, MARKUP, MIB, Hostile, Payload, fifo, link, sparse
from hostile_digest import digested
from torch import nn

EVAL = ("eval", "bad.pt")
INSPECT = ("inspect", "bad.pt", "good/images/val")
UPCYCLE = ("upcycle", "bad.pt", "--to", "good/tiny.yaml", "--output", "new.pt")
START = ("train", "good/tiny.yaml", "output=new", "model.weights=bad.pt")
RESUME = ("train", "good/tiny.yaml", "output=run", "train.resume=auto", "schedule.max_steps=2")
RESULTS = ("eval", "eval/*", "inspect", "inspect/*")
RUN = ("run/config.yaml", "run/environment.json")  # what a run that goes on writes before it reads all
BAD = "bad.pt"


def stored(run: str = "tiny") -> dict[str, Any]:
    """A good checkpoint's dictionary."""
    found: dict[str, Any] = torch.load(f"good/runs/{run}/checkpoints/last.pt", weights_only=True)
    return copy.deepcopy(found)


def bad(
    change: Callable[[dict[str, Any]], object], run: str = "tiny", path: str = BAD, *, redigest: bool = True
) -> Callable[[], None]:
    """Makes a good checkpoint but for what `change` does to its dictionary.

    redigest: its digest is the right one; False: that of the good one, as where the right one would take for ever.
    """

    def make() -> None:
        checkpoint = stored(run)
        change(checkpoint)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(digested(checkpoint) if redigest else checkpoint, path)

    return make


def put(value: Any, *keys: str, run: str = "tiny", path: str = BAD, redigest: bool = True) -> Callable[[], None]:
    """Makes a good checkpoint but for one value. value: itself, or a function that makes it."""

    def change(checkpoint: dict[str, Any]) -> None:
        inner = checkpoint
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value() if callable(value) else value

    return bad(change, run, path, redigest=redigest)


def first_weight(value: Callable[[torch.Tensor], torch.Tensor], *, redigest: bool = True) -> Callable[[], None]:
    """Makes a good checkpoint but for one of its weights."""

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["weights"]["head.weight"] = value(checkpoint["weights"]["head.weight"])

    return bad(change, redigest=redigest)


def raw(content: Callable[[bytes], bytes]) -> Callable[[], None]:
    """Makes a file of other bytes than the good checkpoint's."""

    def make() -> None:
        Path(BAD).write_bytes(content(Path("good/runs/tiny/checkpoints/last.pt").read_bytes()))

    return make


def rezipped(change: Callable[[str, bytes], tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> None:
    """A good checkpoint whose archive's members are changed."""
    with zipfile.ZipFile("good/runs/tiny/checkpoints/last.pt") as old, zipfile.ZipFile(BAD, "w", compression) as new:
        for member in old.infolist():
            new.writestr(*change(member.filename, old.read(member)))


def bomb() -> None:
    """Two megabytes that inflate to two gigabytes."""
    with zipfile.ZipFile(BAD, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("last/data.pkl", "w", force_zip64=True) as member:
            member.write(b"\x80\x02X" + struct.pack("<I", 2**31 - 1))
            for _ in range(2048):
                member.write(bytes(MIB))
        archive.writestr("last/version", "3\n")
        archive.writestr("last/byteorder", "little")


def lying_storage() -> None:
    """Tensors that are said to have a million times the numbers that the archive holds of them."""

    def lie(name: str, content: bytes) -> tuple[str, bytes]:
        if not name.endswith("data.pkl"):
            return name, content
        number = rb"(X\x03\x00\x00\x00cpuq.|cpuh.|h.)(?:K.|M..|J....)t"  # of a storage: the last of five values
        return name, re.sub(number, lambda found: found[1] + b"J\x00\x00\x00\x7ft", content, flags=re.DOTALL)

    rezipped(lie)


def laughs() -> Any:
    """Lists of the same ten lists, thirty deep: small in the file, 10³⁰ entries to whoever walks through them."""
    found: Any = ["ha"] * 10
    for _ in range(30):
        found = [found] * 10
    return found


def deep() -> None:
    """A good checkpoint, but for data.val in its config: 100,000 lists in each other."""

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        text = b"good/images/val"
        return name, content.replace(b"X" + struct.pack("<I", len(text)) + text, b"]" * 10**5 + b"a" * (10**5 - 1))

    rezipped(change)


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.payload = Payload()


def in_a_run(make: Callable[[], None]) -> Callable[[], None]:
    """The checkpoint as the last one of a run that is to go on."""

    def both() -> None:
        make()
        Path("run/checkpoints").mkdir(parents=True)
        Path(BAD).rename("run/checkpoints/last.pt")

    return both


def resumed(*keys: str, value: Any, says: tuple[str, ...] = ("the run in run",)) -> Hostile:
    """A run to go on with, of whose training state a part is another. says: as of `Hostile`."""

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] |= {"output": "run"}
        inner = checkpoint
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    what = f"a run to go on with whose {'.'.join(keys)} is {str(value)[:30]}"
    return Hostile(what, in_a_run(bad(change)), RESUME, says, leaves=RUN)


CODE = [
    Hostile("a payload as a checkpoint's model", put(Payload, "model"), EVAL, ("refused", "would call")),
    Hostile("a payload deep in the config", put(Payload, "config", "data", "val"), INSPECT, ("refused", "would call")),
    Hostile("a payload among the weights", put(Payload, "weights", "head.weight"), UPCYCLE, ("refused",)),
    Hostile("a payload among the class names", put(lambda: ["a", Payload()], "data", "classes"), START, ("refused",)),
    Hostile("a payload in the optimizer's state", put(Payload, "training", "optimizer"), EVAL, ("refused",)),
    Hostile("a whole module, pickled", lambda: torch.save(Module(), BAD), EVAL, ("refused",)),
    Hostile("a plain pickle", lambda: Path(BAD).write_bytes(pickle.dumps(Payload())), EVAL, (BAD,)),
    Hostile(
        "a payload in torch's format before 1.6",
        lambda: torch.save({"format": 1, "model": Payload()}, BAD, _use_new_zipfile_serialization=False),
        EVAL,
        (BAD,),
    ),
    Hostile(
        "timm told to load a further file",
        lambda: (put("evil.pth", "model", "kwargs", "checkpoint_path")(), torch.save(Module(), "evil.pth")),
        EVAL,
        (BAD, "checkpoint_path"),
    ),
    Hostile(
        "timm told to take weights from a file",
        lambda: (
            put({"file": "evil.pth"}, "model", "kwargs", "pretrained_cfg_overlay")(),
            torch.save(Module(), "evil.pth"),
        ),
        INSPECT,
        (BAD, "pretrained_cfg_overlay"),
    ),
    Hostile("a model of the hub", put("hf-hub:evil/model", "model", "name"), EVAL, (BAD, "hf-hub:evil/model")),
    Hostile("a class for an argument's name", put("os.system", "model", "kwargs", "norm_layer"), EVAL, (BAD,)),
    Hostile(
        "attention from the hub, for GPT-2",
        put("evil/kernels", "model", "kwargs", "attn_implementation", run="text"),
        EVAL,
        (BAD, "attn_implementation"),
    ),
]

ENORMOUS = [
    Hostile("10⁹ experts", put(10**9, "model", "moe", "num_experts"), EVAL, (BAD,), alone=True),
    Hostile("10⁹ blocks", put(10**9, "model", "kwargs", "depth"), EVAL, (BAD,), alone=True),
    Hostile("100,000 blocks", put(10**5, "model", "kwargs", "depth"), INSPECT, (BAD,), alone=True),
    Hostile("a width of 10⁶", put(10**6, "model", "kwargs", "embed_dim"), EVAL, (BAD,), alone=True),
    Hostile("an MLP 10⁹ wide", put(1e9, "model", "kwargs", "mlp_ratio"), EVAL, (BAD,), alone=True),
    Hostile("10⁹ classes in the arguments", put(10**9, "model", "kwargs", "num_classes"), EVAL, (BAD,), alone=True),
    Hostile("images of 10⁹ pixels a side", put(10**9, "model", "kwargs", "img_size"), EVAL, (BAD,), alone=True),
    Hostile("patches of no pixel", put(0, "model", "kwargs", "patch_size"), EVAL, (BAD,)),
    Hostile("a vocabulary of 10¹²", put(10**12, "model", "kwargs", "vocab_size", run="text"), EVAL, (BAD,), alone=True),
    Hostile(
        "a billion layers of GPT-2", put(10**9, "model", "kwargs", "n_layer", run="text"), EVAL, (BAD,), alone=True
    ),
    Hostile("images of 10⁹ pixels to inspect", put(10**9, "data", "image_size"), INSPECT, (BAD,), alone=True),
    Hostile("a crop of nothing, to inspect", put(1e-9, "data", "eval_crop"), INSPECT, (BAD,), alone=True),
    Hostile("a crop of nothing", put(1e-9, "config", "data", "eval_crop"), EVAL, (BAD, "eval_crop"), alone=True),
    Hostile("a million workers", put(10**6, "config", "data", "workers"), EVAL, (BAD, "data.workers")),
    Hostile("10¹² epochs", put(10**12, "config", "schedule", "epochs"), EVAL, (BAD, "schedule.epochs"), alone=True),
    Hostile("a time limit of 10³⁰⁰ seconds", put(1e300, "config", "data", "timeout"), EVAL, (BAD, "data.timeout")),
    Hostile(
        "10¹² images a batch of evaluation",
        put(10**12, "config", "data", "eval_batch_size"),
        EVAL,
        status=0,
        says=("top-1",),
        leaves=RESULTS,
    ),
    Hostile("a zip bomb", bomb, EVAL, (BAD, "compressed"), alone=True),
    Hostile(
        "lists of lists of lists, 10³⁰ in all",
        put(laughs, "config", "data", "val", redigest=False),
        EVAL,
        (BAD,),
        alone=True,
    ),
    Hostile(
        "lists 10³⁰ in all for the kwargs",
        put(laughs, "model", "kwargs", "x", redigest=False),
        EVAL,
        (BAD,),
        alone=True,
    ),
    Hostile("a config 100,000 lists deep", deep, EVAL, (BAD,), alone=True),
    Hostile("a terabyte of zeros", lambda: sparse(BAD, 2**40), EVAL, (BAD,), alone=True),
    Hostile(
        "a terabyte behind the beginning of a checkpoint",
        lambda: sparse(BAD, 2**40, Path("good/runs/tiny/checkpoints/last.pt").read_bytes()[:4096]),
        EVAL,
        (BAD,),
        alone=True,
    ),
    *[
        Hostile(f"lists 10³⁰ in all for {key}", put(laughs, key, redigest=False), EVAL, (BAD, key), alone=True)
        for key in ("vmoe", "rank", "training")
    ],
    Hostile(
        "10¹² numbers from one in the optimizer's state",
        put(lambda: torch.zeros(1).expand(10**6, 10**6), "training", "optimizer", redigest=False),
        EVAL,
        (BAD, "training"),
        alone=True,
    ),
    Hostile(
        "one tensor 100,000 times, 100 GB in all",
        put(lambda: [torch.zeros(2**18)] * 10**5, "training", "optimizer", redigest=False),
        EVAL,
        (BAD, "many times"),
        alone=True,
    ),
    Hostile(
        "one text a million times, 10 GB in all",
        put(lambda: ["x" * 10_000] * 900_000, "training", "optimizer", redigest=False),
        EVAL,
        (BAD, "characters"),
        alone=True,
    ),
    Hostile("tensors of more numbers than stored", lying_storage, EVAL, (BAD,), alone=True),
]

DAMAGED = [
    *[
        Hostile(f"a checkpoint cut at {tenth}0 %", raw(lambda all_, n=tenth: all_[: len(all_) * n // 10]), EVAL, (BAD,))
        for tenth in range(10)
    ],
    Hostile("a checkpoint without its last byte", raw(lambda all_: all_[:-1]), EVAL, (BAD,)),
    Hostile("a checkpoint behind another", raw(lambda all_: all_ + all_), EVAL, ("top-1",), 0, RESULTS),
    Hostile(
        "names in the archive that lead out of it",
        lambda: rezipped(lambda name, content: (f"../../{name}", content)),
        EVAL,
        (BAD,),
    ),
    Hostile(
        "weights compressed",
        lambda: rezipped(lambda name, content: (name, content), zipfile.ZIP_DEFLATED),
        EVAL,
        (BAD, "compressed"),
    ),
    Hostile("a folder for a checkpoint", lambda: Path(BAD).mkdir(), EVAL, (BAD,)),
    Hostile("a pipe for a checkpoint", lambda: fifo(BAD), EVAL, (BAD,)),
    Hostile("/dev/zero for a checkpoint", lambda: link("/dev/zero", BAD), EVAL, (BAD,)),
    Hostile("a pipe to start from", lambda: fifo(BAD), START, (BAD,)),
    Hostile("a pipe to upcycle", lambda: fifo(BAD), UPCYCLE, (BAD,)),
    Hostile("a link to itself", lambda: link(BAD, BAD), EVAL, (BAD,)),
    Hostile("a checkpoint that may not be read", lambda: (raw(bytes)(), Path(BAD).chmod(0)), EVAL, (BAD,)),
    Hostile("a list", lambda: torch.save([1, 2], BAD), EVAL, (BAD, "no checkpoint of vmoe")),
    Hostile("a format that is a tensor", put(lambda: torch.ones(2), "format"), EVAL, (BAD, "format")),
    Hostile("a format that is a text", put(ESCAPES, "format"), EVAL, (BAD, "format")),
]

CONTENTS = [
    Hostile("a digest of other contents", put("0" * 64, "digest", redigest=False), EVAL, (BAD, "digest")),
    Hostile("a digest that is a list", put([], "digest", redigest=False), EVAL, (BAD, "digest")),
    Hostile("a weight changed behind the digest", first_weight(lambda old: old + 1, redigest=False), EVAL, ("digest",)),
    Hostile("a rank that is a text", put(ESCAPES, "rank"), EVAL, (BAD, "rank")),
    Hostile("a version that is a list", put([], "vmoe"), EVAL, (BAD, "vmoe")),
    Hostile("an unknown key", put(1, ESCAPES), EVAL, (BAD, "no part of it")),
    Hostile("a model that is a list", put([], "model"), EVAL, (BAD, "model")),
    Hostile("a model without arguments", bad(lambda all_: all_["model"].pop("kwargs")), EVAL, (BAD, "kwargs")),
    Hostile("arguments that are a list", put([1], "model", "kwargs"), INSPECT, (BAD, "kwargs")),
    Hostile("arguments whose names are numbers", put({1: 2}, "model", "kwargs"), EVAL, (BAD, "keys")),
    Hostile("a model's name that is a number", put(7, "model", "name"), EVAL, (BAD, "name")),
    Hostile("a model's name that colours the terminal", put(ESCAPES, "model", "name"), EVAL, (BAD,)),
    Hostile("a spec with an unknown key", put(1, "model", "moe", "experrts"), EVAL, (BAD, "experrts")),
    Hostile("a spec that is a number", put(3, "model", "moe"), UPCYCLE, (BAD, "moe")),
    Hostile("weights that are a list", put([1], "weights"), EVAL, (BAD, "weights")),
    Hostile("a weight that is a text", put("x", "weights", "head.weight"), EVAL, (BAD, "head.weight")),
    Hostile("a weight under a number", put(lambda: {1: torch.ones(1)}, "weights"), EVAL, (BAD, "weights")),
    Hostile("a weight of another shape", first_weight(lambda old: old[:1]), EVAL, (BAD, "head.weight")),
    Hostile("a weight of no dimension", first_weight(lambda old: old.sum()), INSPECT, (BAD, "head.weight")),
    Hostile(
        "a weight that is missing", bad(lambda all_: all_["weights"].pop("head.weight")), EVAL, (BAD, "head.weight")
    ),
    Hostile("no weights at all", put({}, "weights"), EVAL, (BAD, "weights")),
    Hostile("a weight too many", put(lambda: torch.ones(1), "weights", ESCAPES), EVAL, (BAD,)),
    Hostile("complex weights", first_weight(lambda old: old.to(torch.complex64)), EVAL, (BAD, "head.weight")),
    Hostile("whole numbers for weights", first_weight(lambda old: old.to(torch.int64)), EVAL, (BAD, "head.weight")),
    Hostile("sparse weights", first_weight(lambda old: old.to_sparse()), EVAL, (BAD, "head.weight")),
    Hostile("weights on no device", first_weight(lambda old: old.to("meta")), EVAL, (BAD,)),
    Hostile(
        "10¹² numbers from one",
        first_weight(lambda old: torch.zeros(1).expand(10**6, 10**6), redigest=False),
        EVAL,
        (BAD, "head.weight"),
    ),
    Hostile("weights that are no numbers", first_weight(lambda old: old * float("nan")), EVAL, (BAD, "head.weight")),
    Hostile("weights without end", first_weight(lambda old: old + float("inf")), INSPECT, (BAD, "head.weight")),
    Hostile("a moving average that is evaluated and not there", put("ema", "evaluate"), EVAL, (BAD, "moving average")),
    Hostile("an unknown kind of weights", put("best", "evaluate"), EVAL, (BAD, "evaluate")),
    Hostile("a config that is a list", put([], "config"), EVAL, (BAD, "config")),
    Hostile("a config of another model", put("vit_small_patch16_224", "config", "model", "name"), EVAL, (BAD,)),
    Hostile("a config with a tensor in it", put(lambda: torch.ones(3), "config", "seed"), EVAL, (BAD,)),
    Hostile("a config with bytes in it", put(b"\x1b[31m", "config", "output"), EVAL, (BAD,)),
    Hostile("a config of another task", put("text", "config", "task"), EVAL, (BAD,)),
    Hostile("data that are a text", put("images", "data"), EVAL, (BAD, "data")),
    Hostile("data without classes", bad(lambda all_: all_["data"].pop("classes")), EVAL, (BAD, "classes")),
    Hostile("no class at all", put([], "data", "classes"), EVAL, (BAD, "classes")),
    Hostile("classes that are numbers", put([1, 2], "data", "classes"), INSPECT, (BAD, "classes")),
    Hostile("a class twice", put(["dark", "dark"], "data", "classes"), INSPECT, (BAD, "classes")),
    Hostile("more classes than the model has", put(["dark", "light", "red"], "data", "classes"), EVAL, (BAD,)),
    Hostile("fewer classes than the model has", put(["dark"], "data", "classes"), INSPECT, (BAD,)),
    Hostile(
        "a class name of 50 MB", put(lambda: ["dark", "x" * 50_000_000], "data", "classes"), EVAL, (BAD, "50,000,000")
    ),
    Hostile(
        "class names that colour the terminal", put([ESCAPES, BIDI], "data", "classes"), EVAL, ("data.val", "classes")
    ),
    Hostile("images of no side", put(0, "data", "image_size"), INSPECT, (BAD, "image_size")),
    Hostile("a mean of two channels", put([0.5, 0.5], "data", "mean"), INSPECT, (BAD, "mean")),
    Hostile("a deviation of 0", put([0.0, 0.5, 0.5], "data", "std"), INSPECT, (BAD, "std")),
    Hostile("a mean that is no number", put([float("nan")] * 3, "data", "mean"), INSPECT, (BAD, "mean")),
    Hostile("an unknown tokenizer", put({"kind": ESCAPES}, "data", "tokenizer", run="text"), EVAL, ("tokenizer",)),
    Hostile("a tokenizer that is a list", put([], "data", "tokenizer", run="text"), EVAL, (BAD, "tokenizer")),
    Hostile(
        "a sequence of no token, to inspect",
        put(0, "data", "block_size", run="text"),
        ("inspect", BAD, "--text", "the cat"),
        (BAD, "block_size"),
    ),
    Hostile(
        "a sequence longer than the model's",
        put(10**6, "data", "block_size", run="text"),
        ("inspect", BAD, "--text", "the cat " * 100),
        (BAD, "block_size"),
    ),
    Hostile("training that is a list", put([], "training"), EVAL, (BAD, "training")),
    Hostile("steps that are a text", put(MARKUP, "training", "step"), EVAL, (BAD, "step")),
    resumed("training", value={}, says=("last.pt", "step")),
    resumed("training", "step", value=-5, says=("last.pt", "step")),
    resumed("training", "step", value=10**30, says=("last.pt", "step")),
    resumed("training", "processes", value=0, says=("the run in run", "training.processes")),
    resumed("training", "processes", value=MARKUP, says=("the run in run", "training.processes")),
    resumed("training", "best", value=ESCAPES, says=("the run in run", "training.best")),
    resumed("training", "train_units", value=10**400, says=("the run in run", "training.train_units")),
    resumed("training", "recent_losses", value=[{}], says=("the run in run", "training.recent_losses")),
    resumed("training", "optimizer", value=[]),
    resumed("training", "optimizer", value={"state": {}, "param_groups": []}),
    resumed("training", "line", value={}, says=("the run in run", "training.line")),
    resumed("training", "line", value=MARKUP, says=("the run in run", "training.line")),
    resumed("weights", value={}, says=("the run in run", "Missing")),
]

CHECKPOINTS = [*CODE, *ENORMOUS, *DAMAGED, *CONTENTS]
