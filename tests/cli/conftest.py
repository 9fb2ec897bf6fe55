"""Fixtures that several tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from text_world import make_text_world
from world import make_world


@pytest.fixture(scope="module")
def both_worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with what a run on images and a run on text need."""
    folder = tmp_path_factory.mktemp("worlds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world(folder)
        make_text_world(folder)
        yield folder
