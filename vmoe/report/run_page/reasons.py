"""Why something cannot be shown, and on what data what is shown rests: the words that sections share."""

from __future__ import annotations

from vmoe.report.run_files import RunFiles


def why(files: RunFiles, *names: str) -> str:
    """The problems of the files of these names, or that they do not say it."""
    found = [problem for problem in files.problems if any(name in problem for name in names)]
    return " ".join(found) or f"{' and '.join(names)} of {files.name} do not hold it."


def evaluated_on(files: RunFiles) -> str:
    """``10,000 images``; nothing where the result does not say how many."""
    if files.run is None:
        return ""
    count = files.run.measured.get(files.run.task.evaluated)
    return f"{count:,.0f} {files.run.task.units}" if count is not None else ""


def basis(files: RunFiles) -> str:
    """On what the figures of an evaluation rest: ``10,000 images evaluated``."""
    on = evaluated_on(files)
    return f"{on} evaluated" if on else "the evaluation"


def counted(files: RunFiles) -> str:
    """The same with what was counted in each layer: ``10,000 images evaluated, 1,970,000 tokens in each layer``."""
    found = basis(files)
    tokens = "" if files.counts is None else f"{int(next(iter(files.counts.layers.values())).tokens):,} tokens"
    return found if not tokens or found.startswith(tokens) else f"{found}, {tokens} in each layer"
