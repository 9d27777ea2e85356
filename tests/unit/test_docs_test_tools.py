"""The examples of docs/test-tools.md are run as by a user who has installed the packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from flagpost_consumer.demo.pytest_plugin import RunningPendo

PAGE = Path(__file__).parents[2] / "docs" / "test-tools.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_passes_where_the_packages_are_installed(number: int, tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(EXAMPLES[number])
    options = "-q -W error -p no:cacheprovider -p no:asyncio"
    command = [sys.executable, "-m", "pytest", *options.split(), str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


def test_there_is_an_example_of_each_tool() -> None:
    assert ["RecordingPublisher" in example for example in EXAMPLES] == [True, False]


def test_the_fixture_comes_with_the_package() -> None:
    (found,) = [each for each in entry_points(group="pytest11") if each.name == "flagpost"]
    assert found.value == "flagpost_consumer.demo.pytest_plugin"


def test_the_plugin_imports_no_slow_modules() -> None:
    program = "import sys, flagpost_consumer.demo.pytest_plugin; sys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"aiohttp", "pydantic", "confluent_kafka", "rich"} & set(done.stdout.split())


def test_the_stand_in_stops_with_the_test(flagpost_pendo: RunningPendo) -> None:
    assert flagpost_pendo.requests() == []
    assert flagpost_pendo.violations == []
    with pytest.raises(TimeoutError):
        flagpost_pendo.wait_for(lambda: False, timeout_seconds=0.01)
