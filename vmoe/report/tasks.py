"""What the runs of each task measure: their own keys of `result.json`, and how tables and plots show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vmoe.report.reader import Reader


@dataclass(frozen=True)
class Measure:
    """A number that `result.json` holds for one task alone, and its column.

    read: takes it out of the result. header: of its column, with {} for the prefix where `prefixes`, such as "MGT",
    has those to choose from. sparse: there is a column only where a run has a value. lower_is_better: of two.
    """

    key: str
    read: Callable[[Reader, str], float | None]
    header: str
    digits: int = 2
    prefixes: str = ""
    sparse: bool = False
    lower_is_better: bool = False


@dataclass(frozen=True)
class Task:
    """The tasks differ in this alone.

    item: what the model computes on, with its article. quality: how good it is, the best known first. flops: of the
    forward of one item. speed, further: what is in tables, and what is not. figures: columns of the routing that other
    tasks do not show. axis: the first quality where it is plotted; least_span: how much of it an axis shows at least,
    so that noise does not look like a slope. note: below tables. units, evaluated: what an evaluation goes over, and
    the key of how many of them. label, labels: by what experts are told apart, one and many. label_map: whether these
    are so few that a map of all is readable. maps: whether its runs hold images with their routing.
    """

    name: str
    item: str
    quality: tuple[Measure, ...]
    flops: Measure
    speed: Measure
    further: tuple[Measure, ...]
    figures: tuple[str, ...]
    axis: str
    least_span: float
    note: str
    units: str
    evaluated: str
    label: str
    labels: str
    label_map: bool
    maps: bool

    @property
    def measures(self) -> tuple[Measure, ...]:
        return (*self.quality, self.flops, self.speed, *self.further)

    @property
    def score(self) -> str:
        """The key of what is plotted."""
        return self.quality[0].key


def _where_it_is(reader: Reader, key: str) -> float | None:
    """A number that results from before it was counted lack."""
    return reader.optional_number(key) if reader.has(key) else None


IMAGES = Task(
    name="images",
    item="an image",
    quality=(Measure("top1", Reader.number, "top-1 %"), Measure("top5", Reader.optional_number, "top-5 %")),
    flops=Measure("flops_per_image", Reader.optional_number, "{}FLOPs/image", prefixes="MGT"),
    speed=Measure("images_per_second", Reader.optional_number, "images/s", digits=0),
    further=(
        Measure("eval_samples", Reader.integer, "images"),
        Measure("calibration_error", _where_it_is, "calibration error", digits=4, sparse=True),
    ),
    figures=(),
    axis="top-1 (%)",
    least_span=1.0,
    note="",
    units="images",
    evaluated="eval_samples",
    label="class",
    labels="classes",
    label_map=True,
    maps=True,
)
TEXT = Task(
    name="text",
    item="a token",
    quality=(
        Measure("perplexity", Reader.number, "perplexity", lower_is_better=True),
        Measure("bits_per_byte", Reader.optional_number, "bits/byte", digits=3, sparse=True, lower_is_better=True),
    ),
    flops=Measure("flops_per_token", Reader.optional_number, "{}FLOPs/token", prefixes="MGT"),
    speed=Measure("tokens_per_second", Reader.optional_number, "tokens/s", digits=0),
    further=(
        Measure("word_perplexity", Reader.optional_number, "perplexity a word"),
        Measure("eval_tokens", Reader.integer, "tokens"),
        Measure("model_flops_utilisation", Reader.optional_number, "utilisation", digits=3),
    ),
    figures=("label_information_share",),
    axis="validation perplexity (lower is better)",
    least_span=0.5,
    note="Perplexity: per token, lower is better; between different tokenizers compare bits/byte.",
    units="tokens",
    evaluated="eval_tokens",
    label="token",
    labels="tokens",
    label_map=False,
    maps=False,
)
TASKS = {task.name: task for task in (IMAGES, TEXT)}


def task_named(reader: Reader) -> Task:
    """The task of a result; records from before there were two do not name theirs."""
    name = reader.text("task") if reader.has("task") else IMAGES.name
    if name not in TASKS:
        raise ValueError(f"{reader.where}: task is {name!r}; allowed: {', '.join(TASKS)}")
    return TASKS[name]


def tasks_among(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Each of them once, in the order in which tables show them."""
    found = {task.name for task in tasks}
    return tuple(task for task in TASKS.values() if task.name in found)
