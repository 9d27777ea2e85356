"""The folder under .cache in which mutmut works: the consumer's source as `src`, and the tests beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from mutation.rooms import PACKAGE, REPOSITORY, held_by

_COPIED = ["tests", "helm", "benchmarks", "docs"]
"""The folders that the tests read; caches and npm's packages are not copied."""
_OPTIONS = (
    "-p no:xdist -p no:randomly -p no:cacheprovider -q --capture=no --tb=native --hypothesis-profile quick"
)
"""Native tracebacks, because pytest's own take a tenth of a second, which is more than most mutants take."""
_PYTEST = [*_OPTIONS.split(), "-m", "not (thorough or simulated_hours)"]
_LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "node_modules", "target")


class Workshop:
    """One room's folder; what mutmut found there stays until the next run."""

    def __init__(self, room: str, modules: list[Path]) -> None:
        self.folder = REPOSITORY / ".cache" / "mutation" / room
        self._modules = modules
        self._tests = held_by(room)

    def prepare(self, *, afresh: bool) -> None:
        """Copy the present source and tests, and write mutmut's settings."""
        if afresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        source = REPOSITORY / "consumer" / "src" / PACKAGE
        self._copy(source, self.folder / "src" / PACKAGE)
        for name in _COPIED:
            self._copy(REPOSITORY / name, self.folder / name)
        (self.folder / "pyproject.toml").write_text(self._settings(), "utf-8")

    def run(self, children: int, *, again: bool) -> int:
        """Try the mutants that have not been tried, or all for which no test failed; returns the exit code."""
        options = ["--children", str(children), *(["--again"] if again else [])]
        arguments = [sys.executable, "-m", "mutation.trial", *options, *_PYTEST, *self._tests]
        environ = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(REPOSITORY / "tests")}
        return subprocess.run(arguments, cwd=self.folder, env=environ, check=False).returncode

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        """Copy with the files' times: mutmut makes new mutants of a file that is newer than its mutants."""
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=_LEFT_BEHIND)

    def _settings(self) -> str:
        """mutmut's settings, and pytest's from the repository; the values of both can be written as JSON."""
        repository = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
        mutmut = {
            "source_paths": ["src"],
            "only_mutate": [f"src/{module.as_posix()}" for module in self._modules],
            "also_copy": [name for name in _COPIED if name != "tests"],
            "use_git_change_detection": False,
        }
        pytest = repository["tool"]["pytest"]["ini_options"]
        return _table("tool.pytest.ini_options", pytest) + _table("tool.mutmut", mutmut)


def _table(name: str, settings: dict[str, object]) -> str:
    lines = (f"{key} = {json.dumps(value)}" for key, value in settings.items())
    return "\n".join([f"[{name}]", *lines, ""])
