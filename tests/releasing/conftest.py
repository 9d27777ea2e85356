"""The release that all tests beside this file look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from releasing.releases import Released, release_once


@pytest.fixture(scope="session")
def released(run_directory: Path) -> Released:
    """Made once, whichever worker needs it first."""
    return release_once(run_directory / "release")
