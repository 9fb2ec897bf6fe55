"""`vmoe eval`: checkpoints in, a result.json out for each; with --theta, a sweep of each."""

from __future__ import annotations

import argparse
from pathlib import Path

from vmoe.train.distributed import start_processes
from vmoe.train.evaluate import Evaluation
from vmoe.train.probe import Probe

from .outcome import announce
from .routing_files import save_routing
from .subject import Subject, open_subject, prepare
from .sweep import parse_thresholds, sweep, trained_threshold
from .tasks import assembly_of


def run(options: argparse.Namespace) -> None:
    thresholds = None if options.theta is None else parse_thresholds(options.theta)
    if options.output is not None and len(options.checkpoints) > 1:
        raise ValueError(f"--output is {options.output!r} for {len(options.checkpoints)} checkpoints; allowed: one")
    if thresholds is not None and options.no_routing:
        raise ValueError("--no-routing is given with --theta, which tabulates the routing; allowed: one of them")
    checkpoints = [prepare(Path(path), options) for path in options.checkpoints]
    if thresholds is not None:
        for checkpoint in checkpoints:
            trained_threshold(checkpoint)  # all have one before the first sweep starts
    with start_processes(checkpoints[0].config.train.device) as processes:
        for checkpoint in checkpoints:
            subject = open_subject(checkpoint, processes)
            if thresholds is None:
                evaluate(subject, routing=not options.no_routing)
            else:
                sweep(subject, thresholds)


def evaluate(subject: Subject, *, routing: bool) -> None:
    """Evaluate once; the first process writes the result and says where it is."""
    evaluation = subject.evaluation(routing=routing)
    if subject.processes.first:
        announce(subject.outcome_of(evaluation), subject.prepared.folder)
        save_routing_of(subject, evaluation)


def save_routing_of(subject: Subject, evaluation: Evaluation) -> None:
    """Write what the evaluation counted, and a sample of its data with the routing."""
    _, stored, config, folder = subject.prepared
    samples, batch_size = config.train.probe_samples, config.data.eval_batch_size
    probe = Probe.read(subject.loader, samples, batch_size) if samples and evaluation.routing else None
    assembly, entry = assembly_of(config), stored["data"]
    save_routing(evaluation.stats, subject.model, subject.task, assembly, entry, probe, folder)
