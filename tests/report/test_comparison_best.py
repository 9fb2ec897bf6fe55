"""Which row of a comparison is marked as the best, and where none is."""

from comparable import run_of

from vmoe.report.comparison_page.best import best_cells
from vmoe.report.seeds import rows_of


def best(tmp_path, scores, *, text=False, key="top1"):
    """scores: for each row those of its seeds. Returns the numbers of the rows that are marked under the key."""
    runs = [
        run_of(tmp_path / f"row{row}_{seed}", seed, balance=str(row), text=text, **{key: score})
        for row, of_row in enumerate(scores)
        for seed, score in enumerate(of_row)
    ]
    return {row for row, marked in best_cells(rows_of(runs).rows) if marked == key}


def test_the_best_is_marked_where_its_interval_meets_no_other(tmp_path):
    """Means 70, 72 and 75, each ± 1."""
    assert best(tmp_path, [(69, 70, 71), (74, 75, 76), (71, 72, 73)]) == {1}


def test_nothing_is_marked_where_intervals_meet(tmp_path):
    """70 ± 1 reaches 71, where 72 ± 1 begins."""
    assert best(tmp_path, [(69, 70, 71), (71, 72, 73)]) == set()


def test_lower_is_better_for_perplexity(tmp_path):
    assert best(tmp_path, [(24, 25, 26), (20, 21, 22)], text=True, key="perplexity") == {1}


def test_two_seeds_say_too_little(tmp_path):
    assert best(tmp_path, [(69, 70), (90, 91)]) == set()
    assert best(tmp_path, [(69, 70, 71), (90,)]) == set()


def test_a_row_alone_is_not_the_best_of_anything(tmp_path):
    assert best(tmp_path, [(69, 70, 71)]) == set()


def test_tasks_are_judged_apart(tmp_path):
    """A single row of text beside two of images."""
    runs = [
        run_of(tmp_path / f"{name}_{seed}", seed, balance=name, top1=top1 + seed)
        for name, top1 in (("1", 60), ("2", 70))
        for seed in range(3)
    ]
    text = [run_of(tmp_path / f"text_{seed}", seed, text=True, perplexity=20 + seed) for seed in range(3)]
    assert best_cells(rows_of([*runs, *text]).rows) == {(1, "top1")}
