"""What a check found, as a value; and many of them as text or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

FORMAT = 1
NAME = 13  # columns of a finding's name


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """name: what was looked at. found: what is there. advice: what to do about it, where something should be done."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Finding:
    return Finding(name, Verdict.OK, found)


def warning(name: str, found: str, advice: str = "") -> Finding:
    return Finding(name, Verdict.WARNING, found, advice)


def problem(name: str, found: str, advice: str = "") -> Finding:
    return Finding(name, Verdict.PROBLEM, found, advice)


def as_lines(finding: Finding) -> list[str]:
    """A line, and its advice below it; aligned with others whose names are no longer than `NAME`."""
    margin = " " * (2 + len(Verdict.WARNING) + 2 + NAME + 2)
    text = f"  {finding.verdict:<{len(Verdict.WARNING)}}  {finding.name:<{NAME}}  {finding.found}"
    return [text.replace("\n", f"\n{margin}"), *([f"{margin}→ {finding.advice}"] if finding.advice else [])]


def as_json(found: Sequence[tuple[str, Finding]]) -> dict[str, Any]:
    """For machines: the worst verdict, and every finding with its group."""
    findings = [{"group": group, **asdict(finding)} for group, finding in found]
    order = list(Verdict)
    worst = max((finding["verdict"] for finding in findings), key=order.index, default=Verdict.OK)
    return {"format": FORMAT, "verdict": worst, "findings": findings}


def in_bytes(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if size >= 10 or size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
