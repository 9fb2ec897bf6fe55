"""The world of good files, once for all hostile ones; helpers of the command line's tests are found beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for part in ("cli", "report"):
    sys.path.append(str(Path(__file__).parents[1] / part))


@pytest.fixture(scope="session")
def good_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hostile_world import make_good_world

    folder = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_good_world(folder)
    return folder


@pytest.fixture
def empty_folder(tmp_path: Path, good_world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty but for ``good``."""
    (tmp_path / "good").symlink_to(good_world)
    monkeypatch.chdir(tmp_path)
    return tmp_path
