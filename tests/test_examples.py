"""The notebooks in docs/examples run as they stand, and hold what running them shows."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

EXAMPLES = sorted((Path(__file__).parents[1] / "docs" / "examples").glob("*.ipynb"))


def code_cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    namespace = {"__name__": "__main__"}
    for cell in code_cells(path):
        lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith("%")]
        exec(compile("\n".join(lines), f"{path.name}, {cell['id']}", "exec"), namespace)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_was_executed_whole_and_shows_its_figures(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        shown = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in cell["outputs"])
        assert ("image/png" in shown) == "".join(cell["source"]).endswith(".figure")


def test_there_is_one():
    assert EXAMPLES
