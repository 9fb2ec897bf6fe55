"""Checks of Python and packages, against what vmoe's own package states that it needs."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, metadata
from typing import NamedTuple

from .finding import Finding, ok, problem, warning
from .machine import Machine
from .situation import Situation

# What each extra is for. The first is missed by whoever keeps the default loader.
EXTRAS = {
    "ffcv": "data.loader=ffcv, the default, and vmoe write",
    "demo": "data.train=digits",
    "report": "plots",
    "lm": "task: text",
    "tensorboard": "train.tensorboard",
    "wandb": "train.wandb",
}
MISSED = "ffcv"
OTHERS = ("numpy", "numba", "triton", "opencv-python", "pillow")  # what those bring along, and decides much
REQUIREMENT = re.compile(r"(?P<name>[\w-]+)(>=(?P<least>[\d.]+))?(; extra == \"(?P<extra>\w+)\")?")


class Requirement(NamedTuple):
    """name: of a package. least: its version. extra: of vmoe, that asks for it; None for vmoe itself."""

    name: str
    least: str | None
    extra: str | None


def requirements(machine: Machine) -> list[Requirement]:
    """Of vmoe and its extras; those that name extras of vmoe again are left out."""
    matches = map(REQUIREMENT.fullmatch, machine.requirements())
    return [Requirement(match["name"], match["least"], match["extra"]) for match in matches if match]


def check_python(at: Situation) -> list[Finding]:
    version, name = platform.python_version(), "python"
    try:
        needed = metadata("vmoe")["Requires-Python"].removeprefix(">=")
    except PackageNotFoundError:
        return [warning(name, f"{version}; vmoe is no installed package, so its needs are not known", "pip install .")]
    if _numbers(version) < _numbers(needed):
        return [problem(name, f"{version}; vmoe needs {needed} or later", f"a virtual environment of Python {needed}")]
    return [ok(name, f"{version} on {platform.platform()}")]


def check_packages(at: Situation) -> list[Finding]:
    """What every run needs; and versions of what comes with it."""
    found = [_check(at.machine, one) for one in requirements(at.machine) if one.extra is None]
    versions = {name: at.machine.version(name) for name in OTHERS}
    there = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return [*found, ok("others", there or "none")]


def check_extras(at: Situation) -> list[Finding]:
    """What some runs need. An extra that vmoe's package does not state, as an older one, is a package's name."""
    found, needed = [], requirements(at.machine)
    for extra, purpose in EXTRAS.items():
        asked = [one for one in needed if one.extra == extra]
        checked = [_check(at.machine, one) for one in asked or [Requirement(extra, None, extra)]]
        lacking = [one for one in checked if one.advice]
        name, advice = f"[{extra}]", f"pip install 'vmoe[{extra}]', for {purpose}"
        text = ", ".join(f"{one.name} {one.found}" for one in lacking or checked)
        if not lacking:
            found.append(ok(name, text))
        elif extra == MISSED:
            found.append(warning(name, text, advice))
        else:
            found.append(ok(name, f"{text}: {advice}"))
    return found


def _check(machine: Machine, needed: Requirement) -> Finding:
    """One package: its version, or what is wrong with it."""
    version, advice = machine.version(needed.name), f"pip install --upgrade {needed.name}"
    if version is None:
        return problem(needed.name, "is not installed", f"pip install {needed.name}")
    if needed.least is not None and _numbers(version) < _numbers(needed.least):
        return problem(needed.name, f"{version}, older than {needed.least}", advice)
    return ok(needed.name, version)


def _numbers(version: str) -> tuple[int, ...]:
    """``2.15.0+cpu`` as (2, 15, 0): what versions are compared by."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()
