"""`vmoe eval`: checkpoints in, a result.json out for each on each data set; a sweep of each, or a pair, where asked."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from vmoe.train.distributed import Processes, start_processes
from vmoe.train.evaluate import Evaluation
from vmoe.train.probe import Probe

from .against import PARTS, announce_pair, check_same_images
from .class_files import save_class_accuracy
from .outcome import announce
from .routing_files import maps_of, save_routing
from .rows import check_rows, put_row, row_of
from .subject import Prepared, Subject, open_subject, prepare, read_source
from .sweep import parse_thresholds, sweep, trained_threshold
from .tasks import Judging


def run(options: argparse.Namespace) -> None:
    thresholds = None if options.theta is None else parse_thresholds(options.theta)
    check_options(options)
    prepared = prepare_all(options)
    if thresholds is not None:
        for one in prepared:
            trained_threshold(one)  # all have one before the first sweep starts
    if options.csv is not None:
        check_rows(Path(options.csv))
    with start_processes(prepared[0].config.train.device) as processes:
        for one in prepared:
            if options.against is not None:
                evaluate_pair(one, options, processes)
            elif thresholds is not None:
                sweep(open_subject(one, processes), thresholds)
            else:
                subject = open_subject(one, processes)
                record(subject, subject.evaluation(routing=not options.no_routing), options)


def check_options(options: argparse.Namespace) -> None:
    """Raise `ValueError` for options that do not go together."""
    data = options.data or [None]
    if options.output is not None and len(options.checkpoints) * len(data) > 1:
        raise ValueError(
            f"--output is {options.output!r} for {len(options.checkpoints)} checkpoints and {len(data)} data sets;"
            " allowed: one checkpoint, one data set"
        )
    if options.against is not None and len(data) > 1:
        raise ValueError(f"--against is given with {len(data)} times --data; allowed: once")
    others = {
        "--no-routing": options.no_routing,
        "--csv": options.csv,
        "--against": options.against,
    }
    if options.theta is not None and (given := [name for name, value in others.items() if value]):
        raise ValueError(f"{given[0]} is given with --theta, which tabulates the routing itself; allowed: one of them")


def prepare_all(options: argparse.Namespace) -> list[Prepared]:
    """Every checkpoint on every data set. Raises `ValueError` where two would be written into one folder."""
    judging = Judging(options.classes, options.real, options.flip, paired=options.against is not None)
    ending = "-theta" if options.theta is not None else ""
    if options.against is not None:
        ending = f"-against-{Path(options.against).stem}"
    prepared = []
    for source in options.checkpoints:
        stored = read_source(source, has_data=options.data is not None)
        for data in options.data or [None]:
            prepared.append(prepare(source, stored, data, options.set, judging, ending))
    if options.output is not None:
        return [prepared[0]._replace(folder=Path(options.output))]
    for folder, times in Counter(one.folder for one in prepared).items():
        if times > 1:
            raise ValueError(
                f"{times} evaluations would be written into {folder}; allowed: checkpoints and data of different names,"
                " or one at a time with --output"
            )
    return prepared


def record(subject: Subject, evaluation: Evaluation, options: argparse.Namespace) -> None:
    """Write what an evaluation came to; the first process does, and says where it is."""
    if not subject.processes.first:
        return
    prepared, outcome = subject.prepared, subject.outcome_of(evaluation)
    announce(outcome, prepared.folder)
    save_class_accuracy(evaluation.scores, subject.assembly, prepared.stored["data"], prepared.folder)
    save_routing_of(subject, evaluation)
    if options.csv is not None:
        put_row(Path(options.csv), row_of(prepared, options.set, outcome.result))


def save_routing_of(subject: Subject, evaluation: Evaluation) -> None:
    """Write what the evaluation counted, and a sample of its data with the routing."""
    prepared = subject.prepared
    samples, batch_size = prepared.config.train.probe_samples, prepared.config.data.eval_batch_size
    probe = Probe.read(subject.loader, samples, batch_size) if samples and evaluation.routing else None
    entry = prepared.stored["data"]
    maps = maps_of(evaluation.stats, subject.model, subject.task, subject.assembly, entry, probe)
    save_routing(evaluation.stats, maps, subject.model, subject.assembly, entry, prepared.folder)


def evaluate_pair(prepared: Prepared, options: argparse.Namespace, processes: Processes) -> None:
    """Evaluate on data.val and on the data that --against names; the first process writes both, and the pair."""
    folder = prepared.folder
    other = prepare(prepared.name, prepared.stored, options.against, options.set, prepared.judging)
    subjects = [
        open_subject(one._replace(folder=folder / part), processes)
        for one, part in zip((prepared, other), PARTS, strict=True)
    ]
    first, second = (subject.loader for subject in subjects)
    by_name = check_same_images(first, second, (prepared.config.data.val, other.config.data.val))
    evaluations = [subject.evaluation(routing=not options.no_routing) for subject in subjects]
    for subject, evaluation in zip(subjects, evaluations, strict=True):
        record(subject, evaluation, options)
    if processes.first:
        announce_pair(subjects, evaluations, folder, by_name=by_name)
