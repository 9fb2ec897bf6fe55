"""`vmoe doctor`: what someone needs to know of a machine, and of a config on it, before a long run.

Checks are small functions of a `Situation` that return findings; they are listed here and nowhere else. What may hang
or crash, such as a driver, a library or a disk, is asked in a process of its own (`isolated`), and a check that fails
says so in its place. This process imports torch only after another one has done so and lived.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator

from .devices import check_cuda, check_distributed, check_experts, check_gpus, check_imports, check_precision
from .ffcv import check_build_tools, check_ffcv
from .finding import Finding, Verdict, as_json, as_lines, warning
from .machine import Machine
from .planned import (
    check_batch,
    check_config,
    check_data,
    check_disk,
    check_logs,
    check_memory_of_run,
    check_model,
    check_output,
    check_page_cache,
)
from .resources import check_compiler, check_cores, check_memory, check_open_files, check_shared_memory, check_threads
from .situation import Situation
from .software import check_extras, check_packages, check_python

Check = Callable[[Situation], list[Finding]]

CHECKS: dict[str, tuple[Check, ...]] = {
    "software": (check_python, check_packages, check_extras, check_imports),
    "FFCV": (check_ffcv, check_build_tools),
    "machine": (check_cores, check_threads, check_memory, check_shared_memory, check_open_files, check_compiler),
    "devices": (check_cuda, check_gpus, check_precision, check_distributed, check_experts),
}
CHECKS_OF_A_RUN: dict[str, tuple[Check, ...]] = {
    "run": (check_config, check_output, check_logs, check_batch, check_data, check_page_cache),
    "model": (check_model, check_memory_of_run, check_disk),
}


def run(options: argparse.Namespace) -> int:
    """Print what was found; returns 1 where that is a problem, else 0."""
    if options.config is not None and "=" in options.config:
        raise ValueError(f"{options.config!r} changes a key of no config; allowed: vmoe doctor CONFIG a.b=value …")
    for name, value in {"processes": options.processes, "timeout": options.timeout}.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"--{name} is {value:g}; allowed: more than 0")
    at = Situation(
        machine=Machine(),
        path=options.config,
        overrides=tuple(options.overrides),
        processes=options.processes,
        timeout=options.timeout,
    )
    groups = {}
    for group, findings in look(at):
        groups[group] = findings
        if findings and not options.json:
            print("\n".join(as_lines(group, findings)), end="\n\n", flush=True)
    found = [finding.verdict for findings in groups.values() for finding in findings]
    if options.json:
        print(json.dumps(as_json(groups), indent=2, ensure_ascii=False))
    else:
        print(f"problems: {found.count(Verdict.PROBLEM)}, warnings: {found.count(Verdict.WARNING)}")
    return int(Verdict.PROBLEM in found)


def look(at: Situation) -> Iterator[tuple[str, list[Finding]]]:
    """Each group of checks, when all of it is known."""
    groups = CHECKS if at.path is None else CHECKS | CHECKS_OF_A_RUN
    for group, checks in groups.items():
        yield group, [finding for check in checks for finding in findings_of(check, at)]


def findings_of(check: Check, at: Situation) -> list[Finding]:
    """What a check found, or that it failed itself."""
    try:
        return check(at)
    except Exception as error:  # whatever a broken machine leads to is a finding about it
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return [warning(name, f"could not be looked at: {type(error).__name__}: {error}")]
