"""Fixtures that several parts' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data that is no part of the repository: the folder VMOE_TEST_DATA names, or ../shared/data beside it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("VMOE_TEST_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real data at '{path}'; VMOE_TEST_DATA names its folder")
    return path
