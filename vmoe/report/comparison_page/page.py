"""Writes a comparison into a folder: a page that needs nothing else, its tables and its figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmoe.report.columns import tasks_of
from vmoe.report.comparison import comparison_markdown, comparison_table
from vmoe.report.differences import Differences, differences
from vmoe.report.html_table import html_table
from vmoe.report.page import THEMES, Part, document, escape, facts_list
from vmoe.report.page.document import asset
from vmoe.report.run_page.blocks import Section, draw_sections
from vmoe.report.seeds import Rows
from vmoe.report.table import Table

from .best import NOTE, best_cells
from .figures import sections_of
from .history import History, histories_of
from .origins import mixed, origins

PAGE = "index.html"
MOST_NOTES = 20


def save_comparison(rows: Rows, folder: str | Path) -> Path:
    """Write `PAGE`, table.md, table.csv and a PNG of each figure into the folder. Returns the page's path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table, differing = comparison_table(rows), differences(rows)
    (folder / "table.csv").write_text(table.csv(), encoding="utf-8")
    (folder / "table.md").write_text(comparison_markdown(table, differing), encoding="utf-8")
    page = folder / PAGE
    page.write_text(_page(rows, table, differing, folder), encoding="utf-8")
    return page


def _page(rows: Rows, table: Table, differing: Differences, folder: Path) -> str:
    histories = histories_of(rows.rows)
    sections = _sections(rows, histories)
    named = {"table": "Results", "configs": "Configs", **{one.key: one.title for one in sections}, "runs": "Runs"}
    links = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name in named.items())
    drawn = draw_sections(sections, folder)
    bodies = "\n".join(section.html(drawn) for section in sections)
    runs = sum(len(row.runs) for row in rows.rows)
    title = f"Comparison of {runs} runs" if runs > 1 else "Comparison of one run"
    body = f"""<header>
<h1>{title}</h1>
{facts_list(_facts(rows))}
<nav aria-label="Sections"><ul class="contents">{links}</ul></nav>
</header>
<div class="controls" data-needs-script hidden><div>{THEMES}</div></div>
<section class="wide" id="table">
<h2>Results</h2>
{_results(rows, table)}
</section>
<section class="wide" id="configs">
<h2>Configs</h2>
{_differences(differing)}
</section>
{bodies}
<section class="wide" id="runs">
<h2>Runs</h2>
{html_table(origins(rows), label="runs")}
{_notes([*mixed(rows), *(note for history in histories for note in history.notes)])}
</section>
<footer>The table is in table.md and table.csv beside this page, each figure in a PNG.</footer>"""
    style = asset("vmoe.report.run_page", "run_page.css") + asset(__package__, "comparison_page.css")
    return document(title, [Part(body, style)])


def _sections(rows: Rows, histories: Sequence[History]) -> list[Section]:
    """Of each task by itself."""
    tasks = tasks_of([row.first for row in rows.rows])
    found = []
    for task in tasks:
        mine = [number for number, row in enumerate(rows.rows) if row.first.task is task]
        prefix = task.name if len(tasks) > 1 else ""
        found += sections_of([rows.rows[n] for n in mine], [histories[n] for n in mine], task, prefix=prefix)
    return found


def _facts(rows: Rows) -> dict[str, str]:
    runs = [run for row in rows.rows for run in row.runs]
    return {
        "rows": f"{len(rows.rows)}, of {len(runs)} runs",
        "models": ", ".join(dict.fromkeys(run.model for run in runs)),
        "evaluated on": ", ".join(dict.fromkeys(str(run.data) for run in runs)),
    }


def _results(rows: Rows, table: Table) -> str:
    best = best_cells(rows.rows)
    notes = [table.note, *([NOTE] if best else [])]
    return html_table(table, label="results", best=best) + f'<p class="caption">{escape(" ".join(notes))}</p>'


def _differences(differing: Differences) -> str:
    """Keys that only some configs have are folded away, where there are others."""
    if not differing.tables:
        return '<p class="words">The configs differ in nothing but seeds and where the runs are kept.</p>'
    shared, own = (
        html_table(table, label=label) + (f'<p class="caption">{escape(table.note)}</p>' if table.note else "")
        for table, label in ((differing.shared, "keys that differ"), (differing.own, "keys that some configs lack"))
    )
    if not differing.shared.rows():
        return own
    if not differing.own.rows():
        return shared
    summary = f"{len(differing.own.rows())} keys that some configs lack"
    return f"{shared}<details><summary>{summary}</summary>{own}</details>"


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    shown = [*notes[:MOST_NOTES], *([f"And {len(notes) - MOST_NOTES} more."] if len(notes) > MOST_NOTES else [])]
    items = "".join(f"<li>{escape(note)}</li>" for note in shown)
    return f'<h3>What is missing or mixed</h3><ul class="notes">{items}</ul>'
