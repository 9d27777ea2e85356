"""The release that all tests beside this file look at."""

from __future__ import annotations

import os

import pytest

from releasing.releases import Released, release_once


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Made once, whichever worker needs it first."""
    mine = tmp_path_factory.getbasetemp()
    shared = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    return release_once(shared / "release")
