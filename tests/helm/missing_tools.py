"""What becomes of a test whose tools are not installed.

In: what is missing. Out: a skip that names it, or, where CI is set, a failure: there nothing may go unnoticed.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def do_without(missing: str, how: str = "make deploy-tools") -> NoReturn:
    """Skip, or fail in CI; also while a module is being imported. `how` says what to do about it."""
    text = f"the chart's tests need {missing}: {how}"
    if "CI" in os.environ:
        pytest.fail(text)
    pytest.skip(text, allow_module_level=True)
