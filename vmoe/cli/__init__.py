"""The command line: `vmoe train | eval | upcycle | export | write | tokens | verify | inspect | report | compare |
doctor | bench-data`.

One file a command; each imports what it needs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from vmoe.untrusted import printable

USAGE_ERROR = 2
USERS_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)  # TimeoutError is an OSError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, or 2 with one clear line on standard error.

    A command may return another one: `vmoe doctor` gives 1 where it found a problem.
    """
    options = parse(arguments)
    show_log()
    try:
        status: int | None = import_module(f"{__name__}.{options.command.replace('-', '_')}").run(options)
    except USERS_ERRORS as error:
        if options.traceback:
            raise
        print(printable(f"vmoe {options.command}: {error}"), file=sys.stderr)  # it may quote a hostile file
        return USAGE_ERROR
    return status or 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command and its options; config keys may stand anywhere among them, which argparse does not do by itself."""
    parser = build_parser()
    options, left = parser.parse_known_args(arguments)
    keys = next((name for name in ("arguments", "overrides") if hasattr(options, name)), None)
    if left and (keys is None or any(one.startswith("-") or "=" not in one for one in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if keys is not None:
        setattr(options, keys, [*getattr(options, keys), *left])
    return options


def show_log() -> None:
    """Let what vmoe logs appear on standard error, as it is; of several processes, from the first alone."""
    logger = logging.getLogger("vmoe")
    if not logger.handlers and os.environ.get("RANK", "0") == "0":
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="vmoe", description="Mixture-of-Experts vision transformers and language models."
    )
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error arose")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a model: a config in, a run folder out",
        usage="vmoe train CONFIG [CONFIG ...] [a.b=value ...] [--print-config | --dry-run [--time SECONDS]]",
    )
    train.add_argument(
        "arguments",
        nargs="*",
        metavar="CONFIG",
        help="YAML files, trained one after another, and config keys to set in all of them, such as moe.gate=self",
    )
    train.add_argument("--config", action="append", default=[], metavar="CONFIG", help="the same as CONFIG")
    only = train.add_mutually_exclusive_group()
    only.add_argument("--print-config", action="store_true", help="print the resolved config and stop")
    only.add_argument("--dry-run", action="store_true", help="build everything, print what it costs and stop")
    train.add_argument(
        "--time",
        type=float,
        metavar="SECONDS",
        help="with --dry-run: time steps and evaluations for about so long, such as 20, and say how long the run takes",
    )

    evaluate = commands.add_parser("eval", help="evaluate checkpoints; writes a result.json for each")
    evaluate.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="RUN/checkpoints/last.pt or best.pt; a folder of vmoe export, or hf-hub:OWNER/NAME; or timm:NAME, a"
        " pretrained model of timm",
    )
    evaluate.add_argument("--set", nargs="+", default=[], metavar="a.b=value", help="keys of its config to change")
    evaluate.add_argument(
        "--data",
        action="append",
        help="file or folder to evaluate on, as data.val; default: the run's own; may be given several times",
    )
    evaluate.add_argument("--output", help="folder for the result of one checkpoint; default: RUN/eval/CHECKPOINT-DATA")
    evaluate.add_argument(
        "--theta",
        metavar="θ,θ,...",
        help="evaluate routing_free checkpoints at each of these thresholds, such as 0.8,0.9,1.0; writes a table, a"
        " plot and sweep.json into RUN/eval/CHECKPOINT-DATA-theta",
    )
    evaluate.add_argument(
        "--no-routing", action="store_true", help="measure accuracy and speed alone, and keep no books on the routing"
    )

    evaluate.add_argument(
        "--classes",
        choices=("same", "some", "subset", "index"),
        default="same",
        help="how the data's class folders stand to the model's: the same; some of them; some, and the model chooses"
        " among these alone (ImageNet-A and -R); or called by their numbers (ImageNet-V2) (same)",
    )
    evaluate.add_argument(
        "--real",
        metavar="FILE",
        help="judge ImageNet's validation images by their reassessed labels too: real.json, or timm for timm's copy",
    )
    evaluate.add_argument(
        "--flip", action="store_true", help="average probabilities over an image and its mirror image"
    )
    evaluate.add_argument(
        "--against",
        metavar="DATA",
        help="evaluate on this copy of the same images too, and compare image by image: a .beton file's folder, say",
    )
    evaluate.add_argument(
        "--csv", metavar="FILE", help="put a row for each evaluation into this table, and keep others"
    )

    upcycle = commands.add_parser("upcycle", help="make a MoE checkpoint of a trained dense model")
    upcycle.add_argument("source", metavar="SOURCE", help="a dense checkpoint of vmoe, or a model's name")
    upcycle.add_argument("--to", required=True, metavar="CONFIG", help="YAML file; its moe says what to convert to")
    upcycle.add_argument("--set", nargs="+", default=[], metavar="a.b=value", help="keys of the config to change")
    upcycle.add_argument("--output", metavar="FILE", help="default: OUTPUT of the config/checkpoints/upcycled.pt")

    export = commands.add_parser(
        "export", help="a checkpoint's model as safetensors with a model card, and onto the hub"
    )
    export.add_argument("checkpoint", metavar="CHECKPOINT", help="RUN/checkpoints/best.pt, say")
    export.add_argument("--output", metavar="FOLDER", help="default: RUN/export/CHECKPOINT")
    export.add_argument(
        "--weights",
        choices=("evaluated", "raw", "ema"),
        default="evaluated",
        help="those the run evaluated, or the raw ones, or their moving average (evaluated)",
    )
    export.add_argument("--push", metavar="OWNER/NAME", help="put it onto the Hugging Face hub too")
    export.add_argument(
        "--private", action="store_true", help="with --push: where the repository is new, for you alone"
    )
    export.add_argument("--overwrite", action="store_true", help="replace an earlier export")

    write = commands.add_parser("write", help="write an image folder as a .beton file for FFCV")
    write.add_argument("source", help="folder with one folder of images a class, or 'digits' for the embedded set")
    write.add_argument("target", help="the .beton file; for digits, a folder for train.beton and val.beton")
    write.add_argument("--max-resolution", type=int, default=500, metavar="PIXELS", help="shrink longer sides (500)")
    write.add_argument("--quality", type=int, default=90, help="JPEG quality (90)")
    write.add_argument("--mode", choices=("jpg", "raw", "proportion"), default="jpg", help="how images are stored")
    write.add_argument("--workers", type=int, help="processes; default: one a core")
    write.add_argument("--overwrite", action="store_true", help="replace an existing file")

    tokens = commands.add_parser("tokens", help="write text as a token file")
    tokens.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="text files in UTF-8, a document each; folders of them; hf:NAME or hf:NAME:CONFIGURATION, a data set of"
        " the Hugging Face hub; python, the sources of the standard library",
    )
    tokens.add_argument("target", metavar="TARGET", help="the .tokens file")
    tokens.add_argument("--tokenizer", choices=("bytes", "gpt2"), default="gpt2", help="what a token is (gpt2)")
    tokens.add_argument(
        "--vocabulary", metavar="FOLDER", help="of gpt2's encoder.json and vocab.bpe; default: what tiktoken finds"
    )
    tokens.add_argument("--val", metavar="TARGET", help="a second .tokens file, for a share of the documents")
    tokens.add_argument("--val-share", type=float, metavar="SHARE", help="about how much goes to --val (0.0005)")
    tokens.add_argument("--pattern", default="*.txt", help="files to take from folders ('*.txt')")
    tokens.add_argument("--split", default="train", help="of hf:NAME (train)")
    tokens.add_argument("--column", default="text", help="of hf:NAME that holds the text (text)")
    tokens.add_argument("--workers", type=int, help="processes; default: one a core")
    tokens.add_argument("--overwrite", action="store_true", help="replace an existing file")

    verify = commands.add_parser("verify", help="check a .beton or token file against its digest")
    verify.add_argument("file", help="the .beton or .tokens file; its sidecar, of the same name and .json, beside it")

    inspect = commands.add_parser(
        "inspect", help="a page that shows where a trained model sends the patches of images, or the tokens of a text"
    )
    inspect.add_argument("checkpoint", metavar="CHECKPOINT", help="of a model with MoE layers")
    inspect.add_argument(
        "images", nargs="*", metavar="IMAGE", help="image files, and folders of them; of more than 64 an even selection"
    )
    inspect.add_argument("--text", metavar="TEXT", help="for a text model: a text file, or the text itself")
    inspect.add_argument(
        "--vocabulary", metavar="FOLDER", help="gpt2's encoder.json and vocab.bpe; default: as trained"
    )
    inspect.add_argument("--output", metavar="FILE", help="default: RUN/inspect/CHECKPOINT.html")

    report = commands.add_parser("report", help="a page of a run: training, routing, images, everything it recorded")
    report.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders of vmoe eval")
    report.add_argument("--output", metavar="FOLDER", help="for the page of one run; default: RUN/report")

    compare = commands.add_parser(
        "compare", help="runs side by side: a table, and a page of what they differ in and how they trained"
    )
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders of vmoe eval")
    compare.add_argument("--format", choices=("text", "markdown", "csv"), default="text", help="of the table (text)")
    compare.add_argument("--plot", metavar="FILE", help="PNG to draw: accuracy or perplexity against training FLOPs")
    compare.add_argument(
        "--output", metavar="FOLDER", help="folder for a page with curves and maps, its figures, and the table"
    )
    compare.add_argument(
        "--each", action="store_true", help="a row for each run; default: seeds of one config are a row"
    )

    doctor = commands.add_parser(
        "doctor",
        help="look at this machine, and at a config on it, before a long run",
        usage="vmoe doctor [CONFIG] [a.b=value ...] [--processes N] [--timeout SECONDS] [--json]",
    )
    doctor.add_argument("config", nargs="?", metavar="CONFIG", help="YAML file of the run that is planned")
    doctor.add_argument("overrides", nargs="*", metavar="a.b=value", help="keys of the config to change")
    doctor.add_argument("--processes", type=int, default=1, metavar="N", help="of the run, on this machine (1)")
    doctor.add_argument(
        "--timeout", type=float, default=180, metavar="SECONDS", help="for each check of what may hang (180)"
    )
    doctor.add_argument("--json", action="store_true", help="print JSON in place of text")

    bench_data = commands.add_parser(
        "bench-data",
        help="time each stage between the disk and the model on a config's own data, and say which one is too slow",
        usage="vmoe bench-data CONFIG [a.b=value ...] [--seconds 20] [--batches N] [--processes N]"
        " [--forward-only | --no-model] [--json]",
    )
    bench_data.add_argument("config", metavar="CONFIG", help="YAML file of a run")
    bench_data.add_argument("overrides", nargs="*", metavar="a.b=value", help="keys of the config to change")
    bench_data.add_argument("--seconds", type=float, default=20, help="about how long it measures (20)")
    bench_data.add_argument(
        "--batches", type=int, default=200, metavar="N", help="that a whole loader is timed over, at most (200)"
    )
    bench_data.add_argument(
        "--processes", type=int, default=1, metavar="N", help="of the run, which share this machine's cores (1)"
    )
    model = bench_data.add_mutually_exclusive_group()
    model.add_argument("--forward-only", action="store_true", help="forwards of the model in place of training steps")
    model.add_argument("--no-model", action="store_true", help="time the data alone")
    bench_data.add_argument("--json", action="store_true", help="print JSON in place of a table")
    return parser
