"""What a script leaves behind: printed tables, a JSON and a Markdown file with all that a number needs beside it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.agree import Agreement
from benchmarks.harness import Spread, Timing
from benchmarks.memory import Memory

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "triton", "transformers", "timm", "scattermoe", "megablocks")

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """columns: of the printed and the Markdown table, which shows the same entries of each row under these heads."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: list[Row]

    def lines(self) -> Iterator[str]:
        """The table in Markdown, its columns aligned."""
        cells = [list(self.columns), *([show(row.get(column)) for column in self.columns] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        for number, row in enumerate(cells):
            yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            if number == 0:
                yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"


@dataclass(frozen=True)
class Target:
    """A ratio or share that is wished for, at most so much."""

    what: str
    at_most: float
    measured: float

    @property
    def met(self) -> bool:
        return self.measured <= self.at_most


@dataclass
class Report:
    """One script's results on one device, printed as they come and written at the end."""

    script: str
    device: torch.device
    settings: Mapping[str, Any]
    commit: str
    out: Path
    tables: list[Table] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    failure: str | None = None

    def add(self, title: str, columns: tuple[str, ...], rows: list[Row], note: str = "") -> None:
        """Print a table and keep it."""
        table = Table(title, note, columns, rows)
        self.tables.append(table)
        print(f"\n{title}", *([note] if note else []), *table.lines(), sep="\n", flush=True)

    def skip(self, what: str, reason: object) -> None:
        """Somebody does not take part, for a reason."""
        lines = str(reason).splitlines() or [type(reason).__name__]
        self.skipped[what] = lines[0]
        print(f"skipped: {what}: {lines[0]}", flush=True)

    def target(self, what: str, at_most: float, measured: float) -> None:
        self.targets.append(Target(what, at_most, measured))

    def write(self) -> None:
        """Print the targets and write everything."""
        targets = self.target_table()
        print("", *targets.lines(), sep="\n")
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{self.device.type}_{self.script}"
        path.with_suffix(".json").write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n")
        path.with_suffix(".md").write_text("\n".join(self.as_markdown(targets)) + "\n", encoding="utf-8")
        print(f"\n{path}.json, {path.name}.md", flush=True)

    def target_table(self) -> Table:
        rows = [
            {"target": target.what, "at most": target.at_most, "measured": target.measured, "met": target.met}
            for target in self.targets
        ]
        return Table("Targets", "", ("target", "at most", "measured", "met"), rows)

    def as_json(self) -> dict[str, Any]:
        return {
            "script": self.script,
            "failure": self.failure,
            **self.surroundings(),
            "settings": dict(self.settings),
            "targets": [{**asdict(target), "met": target.met} for target in self.targets],
            "tables": [
                {"title": table.title, "note": table.note, "rows": [plain(row) for row in table.rows]}
                for table in self.tables
            ],
            "agreements": [asdict(agreement) for agreement in self.agreements],
            "skipped": self.skipped,
        }

    def as_markdown(self, targets: Table) -> Iterator[str]:
        around = self.surroundings()
        versions = ", ".join(f"{name} {version}" for name, version in around["versions"].items() if version)
        yield f"# {self.script} on {around['device']}"
        yield f"\n{around['date']}, commit {around['commit']}, {around['threads']} threads, {versions}"
        yield f"\n`{around['command']}`; the spread in brackets is from the lower to the upper quartile of the rounds."
        if self.failure:
            yield f"\n**Failed, and therefore not complete: {self.failure}**"
        for table in [*([targets] if targets.rows else []), *self.tables]:
            yield f"\n## {table.title}\n"
            if table.note:
                yield f"{table.note}\n"
            yield from table.lines()
        if self.agreements:
            yield "\n## Agreement\n"
            yield "Of each contestant, the output or gradient that is farthest from the reference.\n"
            yield from self.agreement_table().lines()
        if self.skipped:
            yield "\n## Skipped\n"
            yield from (f"- {what}: {reason}" for what, reason in self.skipped.items())

    def agreement_table(self) -> Table:
        rows = [
            {**asdict(agreement), "error": f"{agreement.error:.1e}", "tolerance": f"{agreement.tolerance:.0e}"}
            for agreement in self.agreements
        ]
        return Table("Agreement", "", ("work", "contestant", "reference", "worst", "error", "tolerance"), rows)

    def surroundings(self) -> dict[str, Any]:
        """Machine, versions, commit and time."""
        cores = len(os.sched_getaffinity(0))
        return {
            "device": f"{cpu_model()}, {cores} cores"
            if self.device.type == "cpu"
            else torch.cuda.get_device_name(self.device),
            "cpu": cpu_model(),
            "cores": cores,
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
            "cuda": torch.version.cuda if self.device.type == "cuda" else None,
            "commit": self.commit,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"python -m benchmarks.{self.script} " + " ".join(sys.argv[1:]),
        }


def arguments(script: str, description: str | None, budget: Mapping[str, float]) -> argparse.ArgumentParser:
    """What all scripts take. budget: the default seconds on a CPU and on a GPU."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{script}", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    seconds = ", ".join(f"{default:g} on {device}" for device, default in budget.items())
    parser.add_argument("--budget", type=float, help=f"seconds, which cut rounds to no fewer than five ({seconds})")
    parser.add_argument("--commit", help="what to write down for a folder that is no git checkout")
    parser.set_defaults(script=script, budgets=budget)
    return parser


@contextmanager
def reporting(options: argparse.Namespace) -> Iterator[Report]:
    """A report that is written in any case, with what stopped the script if something did."""
    if options.budget is None:
        options.budget = options.budgets[options.device]
    hidden = ("script", "budgets", "commit", "out")
    settings = {name: value for name, value in vars(options).items() if name not in hidden}
    commit = options.commit or find_commit()
    report = Report(options.script, torch.device(options.device), settings, commit, options.out)
    try:
        yield report
    except BaseException as error:
        report.failure = f"{type(error).__name__}: {error}"
        raise
    finally:
        report.write()


def show(value: Any) -> str:
    """A cell: numbers to three digits, with the quartiles where there are some."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Timing):
        low, median, high = (show(1000 * s) for s in (value.spread.low, value.median, value.spread.high))
        return f"{median} ({low}–{high})"
    if isinstance(value, Spread):
        return f"{show(value.median)} ({show(value.low)}–{show(value.high)})"
    if isinstance(value, Memory):
        return show(value.kept / 2**20)
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def plain(row: Row) -> Row:
    """A row for JSON: every round's seconds, spreads and bytes in full."""
    found: Row = {}
    for name, value in row.items():
        if isinstance(value, Timing):
            found[name] = {"unit": "s", **asdict(value.spread), "rounds": list(value.seconds)}
        elif isinstance(value, Memory):
            found[name] = {"unit": "bytes", **asdict(value)}
        else:
            found[name] = asdict(value) if isinstance(value, Spread) else value
    return found


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor's name as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def find_commit() -> str:
    """The commit of this checkout, with ``, dirty`` where tracked files differ from it."""
    commands = (["git", "rev-parse", "--short=10", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + (", dirty" if changes else "")
