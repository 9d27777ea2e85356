"""axe-core, which finds problems of accessibility in a page.

In: a page in a browser. Out: its findings. npm installs it, at the version locked in tests/axe, for the tests only. A
test is skipped if there is no npm; with CI set it fails.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deadlines import stretched
from devtools import Tab
from real_kafka.parts import CACHE, fetch_once

AXE = Path(__file__).parent / "axe"
FETCH_SECONDS = 300
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def axe() -> str:
    """The source of axe-core, to run in a page."""
    if shutil.which("npm") is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("axe-core needs npm: no npm")
    lock = hashlib.sha256((AXE / "package-lock.json").read_bytes()).hexdigest()[:12]
    built = fetch_once(CACHE / f"axe-{lock}", _fetch)
    return (built / "node_modules" / "axe-core" / "axe.min.js").read_text()


async def findings(browser: Tab, text: str) -> list[str]:
    """What axe finds in the open page, each finding with the elements that it is about."""
    await browser.look(f"{text}; undefined")
    found: list[dict[str, Any]] = await browser.look(
        f"axe.run(document, {{runOnly: {RULES}}}).then(found => found.violations)"
    )
    return [f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes']][:3]}" for each in found]


def _fetch(into: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(AXE / name, into)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command, cwd=into, capture_output=True, text=True, timeout=stretched(FETCH_SECONDS), check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
