"""`vmoe doctor`: what someone needs to know of a machine, and of a config on it, before a long run.

Checks are small functions of a `Situation` that return findings; they are listed here and nowhere else. This process
imports nothing that may hang or crash: what needs torch is looked at in another one, which imports it once and tells
what it finds, finding by finding. What else may hang or crash, such as a driver, FFCV or a disk, that one asks in
processes of their own (`isolated`), and a check that fails says so in its place.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module

from .devices import check_cuda, check_distributed, check_experts, check_gpus, check_imports, check_precision
from .ffcv import check_build_tools, check_ffcv
from .finding import Finding, Verdict, as_json, as_lines, problem, warning
from .isolated import NoAnswerError, streamed
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
Checks = Mapping[str, tuple[Check, ...]]

AT_ONCE: Checks = {"software": (check_python, check_packages, check_extras)}
CHECKS: dict[str, tuple[Check, ...]] = {
    "devices": (check_imports, check_cuda, check_gpus, check_precision, check_distributed, check_experts),
    "machine": (check_cores, check_threads, check_memory, check_shared_memory, check_open_files, check_compiler),
    "FFCV": (check_ffcv, check_build_tools),
}
CHECKS_OF_A_RUN: Checks = {
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
    found: list[tuple[str, Finding]] = []
    for group, finding in look(at):
        if not options.json:
            heading = [group] if not found else ["", group]
            lines = as_lines(finding) if found and found[-1][0] == group else [*heading, *as_lines(finding)]
            print("\n".join(lines), flush=True)
        found.append((group, finding))
    verdicts = [finding.verdict for _, finding in found]
    if options.json:
        print(json.dumps(as_json(found), indent=2, ensure_ascii=False))
    else:
        print(f"\nproblems: {verdicts.count(Verdict.PROBLEM)}, warnings: {verdicts.count(Verdict.WARNING)}")
    return int(Verdict.PROBLEM in verdicts)


def look(at: Situation) -> Iterator[tuple[str, Finding]]:
    """Each finding with its group, as soon as it is known."""
    yield from findings_of(AT_ONCE, at)
    checks = CHECKS if at.path is None else {**CHECKS, **CHECKS_OF_A_RUN}
    there = streamed(partial(_with_torch, checks, at), at.timeout)
    try:
        next(there)
    except NoAnswerError as error:
        yield from findings_of(checks, replace(at, no_torch=str(error)))
        return
    try:
        yield from filter(None, there)
    except NoAnswerError as error:
        yield "end", problem("doctor", f"could not look at the rest: {error}")


def _with_torch(checks: Checks, at: Situation) -> Iterator[tuple[str, Finding] | None]:
    """None once everything is imported, then each finding."""
    with suppress(Exception):  # what cannot be imported is a finding of its own
        import_module("vmoe.cli.train")
    yield None
    with suppress(Exception):  # as above
        at.start()
    yield from findings_of(checks, at)


def findings_of(checks: Checks, at: Situation) -> Iterator[tuple[str, Finding]]:
    """What checks find, each with its group."""
    for group, those in checks.items():
        for check in those:
            for finding in findings_of_one(check, at):
                yield group, finding


def findings_of_one(check: Check, at: Situation) -> list[Finding]:
    """What a check found, or that it failed itself."""
    try:
        return check(at)
    except Exception as error:  # whatever a broken machine leads to is a finding about it
        name = check.__name__.removeprefix("check_").replace("_", " ")
        return [warning(name, f"could not be looked at: {type(error).__name__}: {error}")]
