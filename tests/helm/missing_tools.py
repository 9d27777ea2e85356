"""Skips a test whose tools are not installed.

In: what is missing. Out: a skip that names it; if CI is set, a failure, because CI must run every test.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def do_without(missing: str, how: str = "make deploy-tools") -> NoReturn:
    """Skip, or fail in CI; also while a module is being imported. `how`: the command that installs the tools."""
    text = f"the chart's tests need {missing}: {how}"
    if "CI" in os.environ:
        pytest.fail(text)
    pytest.skip(text, allow_module_level=True)
