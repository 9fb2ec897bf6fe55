"""Wrong inputs and what the user reads. As a program, prints the table of docs/errors.md:

python tests/cli/wrong_inputs.py > docs/errors.md
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from text_world import make_text_world
from world import CONFIG, make_images, make_world, vmoe

from vmoe.data import ArraySource, write_beton

TRAIN = ("train", "tiny.yaml", "output=runs/new")
EVAL = ("eval", "runs/tiny/checkpoints/last.pt")
DENSE = "runs/dense/checkpoints/last.pt"
UPCYCLE = ("upcycle", DENSE, "--to", "tiny.yaml", "--output", "new.pt")
FFCV = ("data.loader=ffcv", "data.train=good.beton", "data.val=good.beton")


class Wrong(NamedTuple):
    """A wrong input, the command that meets it, and what the message must contain."""

    what: str
    command: tuple[str, ...]
    says: tuple[str, ...]


CONFIGS = [
    Wrong("no such config", ("train", "tinny.yaml"), ("tinny.yaml", "no such config file")),
    Wrong("no config at all", ("train",), ("no config given",)),
    Wrong("not YAML", ("train", "broken.yaml"), ("broken.yaml", "not the YAML of a config")),
    Wrong("a list for a config", ("train", "list.yaml"), ("list.yaml", "a mapping of keys")),
    Wrong("a base that includes itself", ("train", "loop.yaml"), ("base leads back to itself",)),
    Wrong("a base that is missing", ("train", "orphan.yaml"), ("nowhere.yaml", "no such config file")),
    Wrong("a key twice", ("train", "twice.yaml"), ("seed stands twice",)),
    Wrong("an alias", ("train", "alias.yaml"), ("an alias in line 2",)),
    Wrong("a missing section", ("train", "short.yaml"), ("data is missing",)),
    Wrong("an unknown section", (*TRAIN, "optimiser.lr=1"), ("optimiser", "did you mean optimizer?")),
    Wrong("an unknown key", (*TRAIN, "data.batchsize=8"), ("data.batchsize", "did you mean batch_size?")),
    Wrong("an unknown gate", (*TRAIN, "moe.gate=routingfree"), ("'routingfree'", "did you mean routing_free?")),
    Wrong("a key of another gate", (*TRAIN, "moe.gate=self", "moe.gate.balance=0.1"), ("moe.gate.balance", "known:")),
    Wrong("text for a number", (*TRAIN, "optimizer.lr=fast"), ("optimizer.lr is 'fast'", "a valid number")),
    Wrong("a number in quotes", (*TRAIN, "seed='1'"), ("seed is '1'", "a valid integer")),
    Wrong("true for a number", (*TRAIN, "data.batch_size=true"), ("data.batch_size is True",)),
    Wrong("not a number", (*TRAIN, "optimizer.lr=.nan"), ("optimizer.lr is nan", "finite")),
    Wrong("a negative rate", (*TRAIN, "optimizer.lr=-1"), ("optimizer.lr is -1", "greater than 0")),
    Wrong("an override of no key", (*TRAIN, "=1"), ("override '=1'", "key=value")),
    Wrong("--time without --dry-run", (*TRAIN, "--time", "20"), ("--time is 20 without --dry-run", "allowed:")),
    Wrong("no time", (*TRAIN, "--dry-run", "--time", "0"), ("--time is 0", "more than 0")),
    Wrong("a config twice", ("train", "tiny.yaml", "tiny.yaml"), ("'runs/tiny' in 2 configs", "a folder for each")),
    Wrong("k above E", (*TRAIN, "moe.gate.k=5"), ("moe.gate.k is 5", "1 to 4")),
    Wrong("GPU kernels on a CPU", (*TRAIN, "moe.dispatch=triton"), ("moe.dispatch is 'triton'", "not on cpu")),
    Wrong("more experts than coordinates", (*TRAIN, "moe.gate=self", "moe.num_experts=33"), ("33", "the width, 32")),
    Wrong(
        "plain experts for Routing-Free",
        (*TRAIN, "moe.gate=routing_free", "moe.experts=mlp"),
        ("moe.experts.kind is 'mlp'", "lowrank_glu"),
    ),
    Wrong(
        "upcycling into equal experts that score themselves",
        (*TRAIN, "moe.init=upcycle", "moe.gate=aoe", "moe.experts={kind: lowrank_glu, hidden: host}"),
        ("upcycle_noise is 0.0", "more than 0"),
    ),
    Wrong(
        "upcycling into wider experts",
        (*TRAIN, "moe.init=upcycle", "moe.experts={kind: mlp, hidden: 256}"),
        ("experts.hidden comes to 256", "at most the width of the host's MLP, 128"),
    ),
    Wrong(
        "two weights to start from", (*TRAIN, f"model.weights={DENSE}", "model.pretrained=true"), ("one of the two",)
    ),
    Wrong("a block that is not there", (*TRAIN, "moe.layers=[1, 2]"), ("moe.layers is [1, 2]", "from 0 to 1")),
    Wrong("blocks by an unknown word", (*TRAIN, "moe.layers=even"), ("moe.layers is 'even'", "everyN")),
    Wrong("an unknown model", (*TRAIN, "model.name=vit_tinny_patch16_224"), ("vit_tinny", "vit_tiny_patch16_224")),
    Wrong("a model without MLPs", ("train", "resnet.yaml"), ("ResNet", "numbered blocks with an `mlp`")),
    Wrong("a model with gated MLPs", ("train", "eva.yaml"), ("GluMlp",)),
    Wrong("an unknown model argument", (*TRAIN, "model.kwargs.widht=3"), ("model.kwargs", "widht")),
    Wrong("an argument set elsewhere", (*TRAIN, "model.kwargs.num_classes=3"), ("num_classes", "the data")),
    Wrong(
        "fixed positions and trained weights",
        (*TRAIN, "model.kwargs.pos_embed=sincos2d", "model.pretrained=true"),
        ("model.kwargs.pos_embed", "pretrained: false"),
    ),
    Wrong(
        "a drop-path that is no boolean",
        (*TRAIN, "model.kwargs.drop_path_uniform=0.1"),
        ("model.kwargs.drop_path_uniform", "true or false"),
    ),
    Wrong("an image size the patches do not fill", (*TRAIN, "data.image_size=10"), ("data.image_size is 10", "(4, 4)")),
    Wrong("an unknown optimizer", (*TRAIN, "optimizer.kind=adamww"), ("optimizer.kind is 'adamww'", "adamw")),
    Wrong("Muon", (*TRAIN, "optimizer.kind=muon"), ("optimizer.kind is 'muon'", "stacked experts")),
    Wrong("an unknown activation", (*TRAIN, "moe.experts={kind: mlp, activation: gelo}"), ("gelo",)),
    Wrong("a batch that cannot be split", (*TRAIN, "train.accumulate=3"), ("data.batch_size is 8", "multiple")),
    Wrong("an odd batch for mixup", (*TRAIN, "data.batch_size=5", "augment.mixup=0.8"), ("5 images", "an even number")),
    Wrong("a warm-up longer than the run", (*TRAIN, "schedule.warmup_epochs=1"), ("warmup_epochs is 1", "less than")),
    Wrong("EMA evaluated but not kept", (*TRAIN, "train.evaluate=ema"), ("train.evaluate is 'ema'", "ema_decay")),
    Wrong("experts dealt out unevenly", (*TRAIN, "parallel.experts=3"), ("parallel.experts is 3", "allowed: 1, 2, 4")),
    Wrong(
        "experts of a dense model dealt out",
        (*TRAIN, "moe.gate=dense", "parallel.experts=2"),
        ("'dense'", "allowed: 1"),
    ),
    Wrong("an unknown layout", (*TRAIN, "parallel.strategy=zero"), ("parallel.strategy is 'zero'", "'fsdp'")),
    Wrong(
        "an optimizer that takes norms of weights in parts",
        (*TRAIN, "parallel.strategy=fsdp", "optimizer.kind=lamb"),
        ("optimizer.kind is 'lamb'", "parallel.strategy 'fsdp'", "adamw"),
    ),
    Wrong("a GPU that is not there", (*TRAIN, "train.device=cuda"), ("train.device is 'cuda'", "cpu, auto")),
]

DATA = [
    Wrong("a missing image folder", (*TRAIN, "data.train=images/trian"), ("data.train", "nearest", "images/train")),
    Wrong("a .beton file for the folder loader", (*TRAIN, "data.val=good.beton"), ("data.val", "data.loader=ffcv")),
    Wrong("an image folder for FFCV", (*TRAIN, *FFCV, "data.train=images/train"), ("data.train", "folder")),
    Wrong("a missing .beton file", (*TRAIN, *FFCV, "data.val=god.beton"), ("data.val", "good.beton")),
    Wrong("a .beton file that is none", (*TRAIN, *FFCV, "data.val=text.beton"), ("data.val", "text.beton")),
    Wrong("a .beton file cut short", (*TRAIN, *FFCV, "data.val=cut.beton"), ("data.val", "cut.beton")),
    Wrong("a sidecar of another file", (*TRAIN, *FFCV, "data.val=swapped.beton"), ("swapped.beton",)),
    Wrong("pictures without class folders", (*TRAIN, "data.val=flat"), ("data.val", "flat", "class")),
    Wrong("an empty class folder", (*TRAIN, "data.val=hollow"), ("data.val", "light")),
    Wrong("classes that differ", (*TRAIN, "data.val=others"), ("data.val", "lacks")),
    Wrong("fewer images than a step", (*TRAIN, "data.batch_size=64"), ("data.train", "24 images", "64")),
    Wrong("a corrupt picture to train on", (*TRAIN, "data.train=corrupt"), ("corrupt/dark/x.png",)),
    Wrong("a corrupt picture to write", ("write", "corrupt", "new.beton"), ("corrupt/dark/x.png",)),
    Wrong("a folder that is missing to write", ("write", "imagse/train", "new.beton"), ("imagse",)),
    Wrong("a target of another name", ("write", "images/train", "new.ffcv"), ("new.ffcv", ".beton")),
    Wrong("a target that is there", ("write", "images/train", "good.beton"), ("good.beton", "overwritten")),
    Wrong("a changed byte to verify", ("verify", "changed.beton"), ("changed.beton",)),
]

RUNS = [
    Wrong("a missing checkpoint", ("eval", "runs/tiny/checkpoints/lost.pt"), ("lost.pt", "no such checkpoint")),
    Wrong("a checkpoint that is none", ("eval", "text.beton"), ("text.beton",)),
    Wrong("a checkpoint cut short", ("eval", "cut.pt"), ("cut.pt", "damaged")),
    Wrong("a checkpoint with a flipped bit", ("eval", "flipped.pt"), ("flipped.pt", "do not match its digest")),
    Wrong("a checkpoint of a newer vmoe", ("eval", "newer.pt"), ("newer.pt", "format 3", "a newer version of vmoe")),
    Wrong("a folder for a checkpoint", ("eval", "images/val"), ("images/val", "no folder that vmoe export wrote")),
    Wrong("a name that the hub cannot have", ("eval", "hf-hub:model"), ("hf-hub:model", "allowed: hf-hub:OWNER/NAME")),
    Wrong(
        "a run whose checkpoints are all damaged",
        ("train", "tiny.yaml", "output=runs/damaged", "train.resume=auto"),
        ("no checkpoint is good", "last.pt: damaged", "previous.pt: damaged"),
    ),
    Wrong("no best checkpoint to keep", (*TRAIN, "checkpoint.keep_best=0"), ("checkpoint.keep_best is 0",)),
    Wrong("an export of what is not there", ("export", "lost.pt"), ("lost.pt", "no such checkpoint")),
    Wrong(
        "an export onto a folder that is there", ("export", DENSE, "--output", "images"), ("images is there already",)
    ),
    Wrong(
        "an export that would replace something else",
        ("export", DENSE, "--output", "images", "--overwrite"),
        ("images holds train", "no part of an export"),
    ),
    Wrong("an export of weights that there are not", ("export", DENSE, "--weights", "ema"), ("no moving average",)),
    Wrong("a repository without an owner", ("export", DENSE, "--push", "model"), ("--push is 'model'", "OWNER/NAME")),
    Wrong("a private export that stays here", ("export", DENSE, "--private"), ("--private is given without --push",)),
    Wrong("a checkpoint with code in it", ("eval", "evil.pt"), ("evil.pt", "refused")),
    Wrong("a dense timm checkpoint", ("eval", "timm.pt"), ("timm.pt", "no checkpoint of vmoe")),
    Wrong(
        "data of other classes to evaluate",
        ("eval", "runs/tiny/checkpoints/last.pt", "--data", "others"),
        ("data.val", "the model lacks red"),
    ),
    Wrong("another model to evaluate", (*EVAL, "--set", "moe.gate.k=1"), ("--set changes moe", "last.pt")),
    Wrong(
        "one folder for two evaluations", (*EVAL, EVAL[1], "--output", "one"), ("--output is 'one'", "2 checkpoints")
    ),
    Wrong("a θ that is no number", (*EVAL, "--theta", "0.9,high"), ("--theta", "'high' is not a number")),
    Wrong("a missing θ", (*EVAL, "--theta", "0.9,,1.1"), ("--theta", "'' is not a number")),
    Wrong("a sweep without routing", (*EVAL, "--theta", "0.9", "--no-routing"), ("--no-routing", "--theta")),
    Wrong("no θ at all", (*EVAL, "--theta", ""), ("--theta", "'' is not a number")),
    Wrong("a θ of 0", (*EVAL, "--theta", "0,1"), ("--theta", "'0' is not positive and finite")),
    Wrong("a negative θ", (*EVAL, "--theta=-1,1"), ("--theta", "'-1' is not positive and finite")),
    Wrong("a θ without end", (*EVAL, "--theta", "1,inf"), ("--theta", "'inf' is not positive and finite")),
    Wrong("a θ that is nan", (*EVAL, "--theta", "nan"), ("--theta", "'nan' is not positive and finite")),
    Wrong("a θ twice", (*EVAL, "--theta", "1,0.9,1.0"), ("--theta", "1.0 stands twice")),
    Wrong("θ for another gate", (*EVAL, "--theta", "0.9,1"), ("last.pt", "gate is 'topk'", "routing_free")),
    Wrong(
        "one folder for two sweeps of θ",
        (*EVAL, EVAL[1], "--theta", "0.9,1", "--output", "one"),
        ("--output is 'one'", "2 checkpoints"),
    ),
    Wrong("a table of θ in another table", (*EVAL, "--theta", "0.9", "--csv", "t.csv"), ("--csv", "--theta")),
    Wrong("another table to write into", (*EVAL, "--csv", "list.yaml"), ("--csv is 'list.yaml'", "checkpoint, data")),
    Wrong("a table in no folder", (*EVAL, "--csv", "lost/t.csv"), ("--csv is 'lost/t.csv'", "folder")),
    Wrong("two evaluations in one folder", (*EVAL, EVAL[1]), ("2 evaluations would be written into runs/tiny/eval",)),
    Wrong(
        "numbered folders for named classes",
        (*EVAL, "--data", "numbered"),
        ("the model lacks 0, 1", "allowed too: --classes index"),
    ),
    Wrong("named folders for numbers", (*EVAL, "--classes", "index"), ("names are no numbers: dark, light",)),
    Wrong("a subset of other classes", (*EVAL, "--data", "others", "--classes", "subset"), ("the model lacks: red",)),
    Wrong("real labels of other classes", (*EVAL, "--real", "timm"), ("--real", "last.pt has 2 others")),
    Wrong(
        "real labels of numbered folders", (*EVAL, "--real", "timm", "--classes", "index"), ("--real", "same or some")
    ),
    Wrong("a pair of other images", (*EVAL, "--against", "images/train"), ("images/train 24", "the same images")),
    Wrong(
        "a pair of several data sets",
        (*EVAL, "--data", "three", "--data", "images/val", "--against", "images/val"),
        ("--against is given with 2 times --data",),
    ),
    Wrong("timm's model without data", ("eval", "timm:deit_tiny_patch16_224"), ("timm:deit_tiny", "--data")),
    Wrong("no model of timm to evaluate", ("eval", "timm:deit_tinny", "--data", "three"), ("deit_tinny is neither",)),
    Wrong(
        "timm's model without classes",
        ("eval", "timm:vit_small_patch14_dinov2.lvd142m", "--data", "three"),
        ("without a classifier",),
    ),
    Wrong("missing weights", (*TRAIN, "model.weights=runs/lost.pt"), ("model.weights is runs/lost.pt", "no such")),
    Wrong("weights that are none of vmoe's", (*TRAIN, "model.weights=timm.pt"), ("model.weights is timm.pt",)),
    Wrong(
        "weights of another model",
        (*TRAIN, f"model.weights={DENSE}", "model.kwargs.embed_dim=48"),
        (DENSE, "embed_dim is 32 there, 48 here"),
    ),
    Wrong(
        "weights of another MoE model",
        (*TRAIN, "model.weights=runs/tiny/checkpoints/last.pt", "moe.gate=self"),
        ("another MoE model", "moe.gate.kind is 'topk' there, 'self' here"),
    ),
    Wrong(
        "weights of other classes",
        (*TRAIN, f"model.weights={DENSE}", "data.train=three", "data.val=three"),
        (DENSE, "a model of 2 classes", "the data have 3"),
    ),
    Wrong("a source that is nothing", ("upcycle", "lost.pt", *UPCYCLE[2:]), ("lost.pt is neither a file nor a model",)),
    Wrong("a source that is no checkpoint", ("upcycle", "text.beton", *UPCYCLE[2:]), ("text.beton",)),
    Wrong(
        "a source with MoE layers",
        ("upcycle", "runs/tiny/checkpoints/last.pt", *UPCYCLE[2:]),
        ("a model with MoE layers (gate topk", "a dense one"),
    ),
    Wrong(
        "a source without pretrained weights",
        ("upcycle", "vit_small_patch16_36x1_224", *UPCYCLE[2:]),
        ("no pretrained weights of vit_small_patch16_36x1_224",),
    ),
    Wrong(
        "a source of another name than the config's model",
        ("upcycle", "deit_small_patch16_224", *UPCYCLE[2:]),
        ("deit_small_patch16_224", "vit_tiny_patch16_224"),
    ),
    Wrong(
        "a source of another depth",
        (*UPCYCLE, "--set", "model.kwargs.depth=3"),
        (DENSE, "depth is 2 there, 3 here"),
    ),
    Wrong("upcycling into a dense model", (*UPCYCLE, "--set", "moe.gate=dense"), ("moe.gate.kind is 'dense'",)),
    Wrong("upcycling onto a file that is there", (*UPCYCLE[:-1], "good.beton"), ("good.beton is there already",)),
    Wrong("an output folder in use", ("train", "tiny.yaml"), ("runs/tiny", "already holds a run")),
    Wrong(
        "a run resumed with another config",
        ("train", "tiny.yaml", "train.resume=auto", "seed=7"),
        ("seed is 7, was 0",),
    ),
    Wrong("a run that is missing to compare", ("compare", "runs/tinny"), ("runs/tinny",)),
    Wrong("a result that is broken", ("compare", "halfrun"), ("halfrun",)),
]

TEXT_TRAIN = ("train", "text.yaml", "output=runs/new")
TEXT_RUN = "runs/text/checkpoints/last.pt"
TEXT = [
    Wrong("an unknown task", (*TRAIN, "task=sound"), ("task is 'sound'", "images, text")),
    Wrong("a key of images for text", (*TEXT_TRAIN, "augment.mixup=0.8"), ("augment is not a known key",)),
    Wrong("a gate that sees later tokens", (*TEXT_TRAIN, "moe.gate=expert_choice"), ("later ones too", "causal")),
    Wrong("slots that mix later tokens", (*TEXT_TRAIN, "moe.gate=soft"), ("later ones too", "causal")),
    Wrong(
        "routing by position, in text",
        (*TEXT_TRAIN, "moe.gate={kind: random, source: hash}"),
        ("source hash routes by a token's position",),
    ),
    Wrong("an unknown size of GPT-2", (*TEXT_TRAIN, "model.name=gpt3"), ("model.name is 'gpt3'", "gpt2-medium")),
    Wrong("an unknown argument of GPT-2", (*TEXT_TRAIN, "model.kwargs.n_layers=3"), ("n_layers", "n_layer")),
    Wrong("an argument of GPT-2 set elsewhere", (*TEXT_TRAIN, "model.kwargs.vocab_size=9"), ("model.vocab_size",)),
    Wrong("heads that do not share the width", (*TEXT_TRAIN, "model.kwargs.n_head=5"), ("n_head", "n_embd")),
    Wrong("fewer rows than tokens", (*TEXT_TRAIN, "model.vocab_size=100"), ("model.vocab_size is 100", "257")),
    Wrong(
        "a stride wider than a window", (*TEXT_TRAIN, "data.eval_stride=17"), ("eval_stride is 17", "block_size, 16")
    ),
    Wrong("steps without warm-up", (*TEXT_TRAIN, "schedule.warmup_steps=null"), ("steps is 24", "warmup_steps")),
    Wrong("text for tokens", (*TEXT_TRAIN, "data.train=train.txt"), ("data.train is 'train.txt'", "vmoe tokens")),
    Wrong("missing tokens", (*TEXT_TRAIN, "data.train=trian.tokens"), ("data.train", "train.tokens")),
    Wrong("tokens cut short", (*TEXT_TRAIN, "data.val=cut.tokens"), ("data.val", "cut.tokens")),
    Wrong("tokens of another vocabulary", (*TEXT_TRAIN, "data.val=nano.bin"), ("data.val", "'gpt2'", "'bytes'")),
    Wrong(
        "blocks longer than the text", (*TEXT_TRAIN, "data.block_size=1024"), ("data.train", "data.block_size 1,024")
    ),
    Wrong("no text to write", ("tokens", "nothing.txt", "new.tokens", "--tokenizer", "bytes"), ("nothing.txt",)),
    Wrong(
        "text that is not UTF-8",
        ("tokens", "latin.txt", "new.tokens", "--tokenizer", "bytes"),
        ("latin.txt", "UTF-8"),
    ),
    Wrong(
        "tokens that are there",
        ("tokens", "val.txt", "train.tokens", "--tokenizer", "bytes"),
        ("train.tokens", "overwritten"),
    ),
    Wrong("a vocabulary that is none", ("tokens", "val.txt", "new.tokens", "--vocabulary", "flat"), ("flat",)),
    Wrong("mirrored text", ("eval", TEXT_RUN, "--flip"), ("--flip is for models of images",)),
    Wrong("images for a text model", ("eval", TEXT_RUN, "--data", "images/val"), ("images/val",)),
    Wrong("no text to look at", ("inspect", TEXT_RUN), ("--text is missing",)),
    Wrong("a text file that is missing", ("inspect", TEXT_RUN, "--text", "lost.txt"), ("lost.txt", "no such file")),
    Wrong("a model of images to read text", ("inspect", EVAL[1], "--text", "a"), ("--text", "model of images")),
    Wrong("a model of text to see images", ("inspect", TEXT_RUN, "images/val"), ("IMAGE", "model of text")),
    Wrong("no image to look at", ("inspect", EVAL[1]), ("no image is given",)),
    Wrong("an image that is missing", ("inspect", EVAL[1], "lost.png"), ("lost.png",)),
    Wrong("a folder without images", ("inspect", EVAL[1], "runs/dense/checkpoints"), ("runs/dense/checkpoints",)),
    Wrong("an image that is none", ("inspect", EVAL[1], "tiny.yaml"), ("tiny.yaml", "cannot be read as an image")),
    Wrong("a dense model to look at", ("inspect", DENSE, "images/val"), ("dense model", "with MoE layers")),
    Wrong("no run to report on", ("report", "runs/lost"), ("runs/lost",)),
    Wrong("a folder that holds no run", ("report", "images"), ("images",)),
    Wrong("one folder for two reports", ("report", "runs/tiny", "runs/dense", "--output", "x"), ("2 runs", "one")),
    Wrong(
        "runs of images and of text in one plot", ("compare", "runs/text", "runs/tiny", "--plot", "p.png"), ("text",)
    ),
]

ALL = CONFIGS + DATA + RUNS + TEXT


class Payload:
    def __reduce__(self) -> tuple:
        return (open, ("code_ran", "w"))


def make_wrong_world(folder: Path) -> None:
    """The world of `make_world`, a finished run, and everything that is wrong in the cases; in the current folder."""
    make_world(folder)
    (folder / "broken.yaml").write_text("a: [1")
    (folder / "list.yaml").write_text("- 1")
    (folder / "loop.yaml").write_text("base: loop.yaml")
    (folder / "orphan.yaml").write_text("base: nowhere.yaml")
    (folder / "twice.yaml").write_text("seed: 1\nseed: 2")
    (folder / "alias.yaml").write_text("a: &a [1]\nb: *a")
    (folder / "short.yaml").write_text("output: runs/x\nmodel: {name: vit_tiny_patch16_224}")

    host = "{name: vit_tiny_patch16_224, kwargs: {patch_size: 4, embed_dim: 32, depth: 2, num_heads: 2}}"
    for name, other in [("resnet", "resnet18"), ("eva", "eva02_tiny_patch14_224")]:
        text = CONFIG.replace(host, f"{{name: {other}}}").replace("runs/tiny", "runs/new")
        (folder / f"{name}.yaml").write_text(text.replace("image_size: 8", "image_size: 28"))

    images, labels = np.zeros((24, 8, 8, 3), np.uint8), np.arange(24) % 2
    write_beton(ArraySource("toy", images, labels, ("dark", "light")), "good.beton", mode="raw", progress=False)
    sidecar = Path("good.beton.json").read_text()
    content = Path("good.beton").read_bytes()
    changed = bytearray(content)
    changed[-len(content) // 3] ^= 1
    for name, data in [("cut", content[:200]), ("swapped", content[:-8]), ("changed", bytes(changed))]:
        Path(f"{name}.beton").write_bytes(data)
        if name != "cut":
            Path(f"{name}.beton.json").write_text(sidecar)
    Path("text.beton").write_text("this is no such file")

    Path("flat").mkdir()
    Image.new("RGB", (8, 8)).save("flat/1.png")
    make_images(Path("hollow"), ("dark",), 2)
    Path("hollow/light").mkdir()
    make_images(Path("others"), ("dark", "red"), 2)
    make_images(Path("corrupt"), ("dark", "light"), 12)
    Path("corrupt/dark/x.png").write_bytes(b"no picture")

    make_images(Path("numbered"), ("0", "1"), 2)
    make_images(Path("three"), ("dark", "light", "red"), 4)
    for arguments in ((), ("moe.gate=dense", "output=runs/dense")):
        trained = vmoe("train", "tiny.yaml", *arguments)
        assert trained.status == 0, trained
    make_text_world(folder)
    trained = vmoe("train", "text.yaml", "schedule.max_steps=1")
    assert trained.status == 0, trained
    Path("cut.tokens").write_bytes(Path("val.tokens").read_bytes()[:-2])
    Path("cut.tokens.json").write_text(Path("val.tokens.json").read_text())
    np.arange(100, dtype="<u2").tofile("nano.bin")
    Path("latin.txt").write_bytes("a\xe9b".encode("latin-1"))
    last = Path("runs/tiny/checkpoints/last.pt").read_bytes()
    Path("cut.pt").write_bytes(last[: len(last) // 2])
    torch.save({"format": 1, "model": Payload()}, "evil.pt")
    flipped = torch.load("runs/tiny/checkpoints/last.pt", weights_only=True)
    flipped["training"]["step"] ^= 1
    torch.save(flipped, "flipped.pt")
    torch.save(flipped | {"format": 3}, "newer.pt")
    Path("runs/damaged/checkpoints").mkdir(parents=True)
    for name in ("last", "previous"):
        Path(f"runs/damaged/checkpoints/{name}.pt").write_bytes(last[: len(last) // 2])
    torch.save({"cls_token": torch.zeros(1)}, "timm.pt")
    Path("halfrun").mkdir()
    Path("halfrun/result.json").write_text('{"gate": ')


def print_table() -> None:
    """Every case with the message it gets, as Markdown."""
    print("# Wrong inputs, and the message each gets\n")
    print("Exit status 2, nothing written. Made by `python tests/cli/wrong_inputs.py > docs/errors.md`.\n")
    print("| wrong | command | message |\n|---|---|---|")
    for case in ALL:
        message = vmoe(*case.command).err.strip().splitlines()
        text = " ".join(line.strip() for line in message)
        text = text if len(text) < 400 else text[:400] + " …"
        cells = [case.what, f"`vmoe {' '.join(case.command)}`", text]
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")


if __name__ == "__main__":
    world = tempfile.mkdtemp()
    try:
        os.chdir(world)
        make_wrong_world(Path())
        print_table()
    finally:
        shutil.rmtree(world)
