"""The top of the page: which run, how good, how expensive, how healthy its routing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmoe.report.columns import MISSING
from vmoe.report.comparison import comparison_table
from vmoe.report.page import escape, facts_list
from vmoe.report.run_files import RunFiles
from vmoe.report.runs import RESULT
from vmoe.report.seeds import Row, Rows
from vmoe.report.table import Table

from .blocks import Absent, Block, Undrawn, plain
from .drawing import Drawings
from .reasons import evaluated_on, why


@dataclass(frozen=True)
class Facts(Undrawn):
    """What is what, as a list."""

    facts: Mapping[str, str]

    def html(self, drawn: Drawings) -> str:
        return facts_list(self.facts)

    def markdown(self, drawn: Drawings) -> str:
        return "".join(f"- {plain(key)}: {plain(value)}\n" for key, value in self.facts.items())


@dataclass(frozen=True)
class Tiles(Undrawn):
    """A table of one row, a tile a column."""

    table: Table

    def html(self, drawn: Drawings) -> str:
        tiles = "".join(
            f"<div><dt>{escape(column.header)}</dt><dd>{escape(column.cells[0])}</dd></div>"
            for column in self.table.columns
        )
        return f'<div><dl class="tiles">{tiles}</dl>\n<p class="caption">{escape(self.table.note)}</p></div>'

    def markdown(self, drawn: Drawings) -> str:
        return self.table.markdown()


@dataclass(frozen=True)
class Missing(Undrawn):
    """That parts of the run are missing, and where the page says which."""

    count: int
    section: str

    def html(self, drawn: Drawings) -> str:
        return f'<p class="absent">{self._text()}: <a href="#{self.section}">see below</a>.</p>'

    def markdown(self, drawn: Drawings) -> str:
        return f"*{self._text()}: see below.*\n"

    def _text(self) -> str:
        return (
            f"{self.count} of this run's files or lines are missing or damaged"
            if self.count > 1
            else ("One of this run's files or lines is missing or damaged")
        )


def overview(files: RunFiles, problems: str) -> list[Block]:
    """problems: the key of the section that lists them."""
    blocks: list[Block] = [Facts(facts_of(files))]
    if files.run is None:
        blocks.append(Absent(f"No headline figures: {why(files, RESULT)}"))
    else:
        table = comparison_table(Rows((Row(files.name, (files.run,), None),)))
        shown = [one for one in table.columns if not {"run", "gate"} & set(one.values) and one.cells != (MISSING,)]
        blocks.append(Tiles(Table(tuple(shown), table.note)))
    if files.problems:
        blocks.append(Missing(len(files.problems), problems))
    return blocks


def facts_of(files: RunFiles) -> dict[str, str]:
    """Of the result, or where there is none, of the config; without what neither says."""
    run, config = files.run, files.config
    said: dict[str, object] = {"gate": files.gate, "experts": config and config.value("moe", "num_experts")}
    if run is not None:
        data = run.data if isinstance(run.data, str) else None
        said |= {"model": run.model, "data": data, "seed": run.seed, "optimizer steps": run.steps}
        said |= {"evaluated on": evaluated_on(files) or None}
    elif config is not None:
        said |= {"model": config.value("model", "name"), "data": config.value("data", "val")}
        said |= {"seed": config.value("seed")}
    if not files.routes:
        said.pop("experts")
    return {
        key: f"{value:,}" if key == "optimizer steps" else str(value) for key, value in said.items() if _is_said(value)
    }


def _is_said(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
