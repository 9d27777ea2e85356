"""The Pythons and dependencies that `make test-versions` finds."""

from __future__ import annotations

import re
import sys
import tomllib

import pytest

from python_versions import LOWEST, ROOT, interpreter, main

THIS = "{}.{}".format(*sys.version_info)
MAKEFILE = (ROOT / "Makefile").read_text()


def test_this_python_is_found_and_one_that_does_not_exist_is_not() -> None:
    assert interpreter(THIS) == sys.executable
    assert interpreter(LOWEST) == sys.executable
    assert interpreter("3.99") is None


def test_a_version_that_is_not_installed_is_reported_and_fails_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main("3.99") == 0
    assert capsys.readouterr().out == "Python 3.99: NOT TRIED: this machine does not have it\n"


def test_every_version_that_the_members_claim_is_tried() -> None:
    tried = re.findall(r"^VERSIONS \?= (.+)$", MAKEFILE, re.MULTILINE)[0].split()
    for member in ("schemas", "publisher", "consumer"):
        project = tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"]
        claimed = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
        assert set(claimed) <= set(tried)
        assert claimed
    assert LOWEST in tried
