"""The release that all tests in this folder use."""

from __future__ import annotations

from pathlib import Path

import pytest

from releasing.releases import Released, release_once


@pytest.fixture(scope="session")
def released(run_directory: Path) -> Released:
    """A release, made once by the first worker that needs it."""
    return release_once(run_directory / "release")
