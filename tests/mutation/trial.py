"""Tries mutants, each in a fork of one pytest session; `Workshop.run` starts this in a room's folder.

In: the folder, with the source and mutmut's settings; pytest's arguments. Out: each mutant's exit code, in the file
in which mutmut keeps it: 0 if it survived, 1 if a test failed, 33 if no test reaches it, negative if a signal ended
it.

mutmut makes the mutants, and switches from one to the next. Starting pytest for each would take longer than the tests
that kill most of them, so the tests are collected once. For a mutant, only the tests that reach its function run, the
quickest first.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from functools import _lru_cache_wrapper
from io import StringIO
from math import ceil
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from mutmut import __main__ as mutmut
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.file_utils import setup_source_paths
from mutmut.utils.format_utils import mangled_name_from_mutant_name

from mutation.mutants import NO_TESTS, is_noticed_by_a_test
from mutation.rooms import PACKAGE

_LEAST_SECONDS = 5
"""The CPU time that each test of a mutant may take in any case."""
_TIMES_AS_LONG = 10
"""How many times the CPU time that the test takes without the mutant it may take in addition."""
_TOLD_AFTER = 100


def main() -> int:
    """Make the mutants of the folder, and try those that have not been tried; returns pytest's exit code."""
    parser = argparse.ArgumentParser(prog="python -m mutation.trial", description=__doc__, allow_abbrev=False)
    parser.add_argument("--children", type=int, required=True)
    parser.add_argument("--again", action="store_true", help="try those, too, for which no test failed")
    asked, given = parser.parse_known_args()
    _make_mutants()
    os.chdir("mutants")
    return int(pytest.main(["--rootdir=.", *given], plugins=[_Trial(asked.children, again=asked.again)]))


def _make_mutants() -> None:
    """Do what mutmut does before it runs a test; the results for a function that has not changed are kept."""
    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    with redirect_stdout(StringIO()):  # mutmut prints each file of the source
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        setup_source_paths()
        mutmut.create_mutants(1)


class _Trial:
    """A plug-in for pytest, which runs the collected tests once without a mutant and then for each mutant."""

    def __init__(self, children: int, *, again: bool) -> None:
        self._children = children
        self._again = again
        self._files = {
            file: json.loads(file.read_text("utf-8")) for file in Path("src").resolve().rglob("*.meta")
        }
        self._seconds: dict[pytest.Item, float] = {}
        """The CPU time of each test."""
        self._reaching: dict[str, list[pytest.Item]] = defaultdict(list)
        """The tests that reach a function, by the name that mutmut gave it."""
        self._running: dict[int, tuple[Path, str]] = {}
        self._tried = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try the mutants, instead of running the tests."""
        self._watch(session.items)
        gc.collect()
        _empty_caches()
        gc.freeze()  # otherwise the collector in each fork would copy the memory that it only looks at
        for file, name in list(self._untried()):
            tests = sorted(self._reaching[mangled_name_from_mutant_name(name)], key=self._seconds.__getitem__)
            if not tests:
                self._note(file, name, NO_TESTS)
                continue
            while len(self._running) >= self._children:
                self._wait()
            self._running[self._fork(name, tests)] = (file, name)
        while self._running:
            self._wait()
        return True

    def _watch(self, items: Sequence[pytest.Item]) -> None:
        """Run the tests without a mutant, to learn which functions they reach, and how long they take."""
        set_mutant_under_test("stats")
        for item in items:
            state()._stats.clear()
            began = time.process_time()
            if error := _error(item):
                raise pytest.UsageError(f"{item.nodeid} fails without a mutant:\n{error}")
            self._seconds[item] = time.process_time() - began
            for function in state()._stats:
                self._reaching[function].append(item)

    def _untried(self) -> Iterator[tuple[Path, str]]:
        for file, meta in self._files.items():
            for name, code in meta["exit_code_by_key"].items():
                if code is None or (self._again and not is_noticed_by_a_test(code)):
                    yield file, name

    def _fork(self, name: str, tests: list[pytest.Item]) -> int:
        child = os.fork()
        if child:
            return child
        try:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            set_mutant_under_test(name)
            is_noticed = any(self._is_failing(each) for each in tests)
        except BaseException:  # noqa: BLE001 - nothing may return from the fork
            is_noticed = True
        os._exit(1 if is_noticed else 0)

    def _is_failing(self, test: pytest.Item) -> bool:
        """Run a test in the fork, with its own limit of CPU time, which ends an endless loop."""
        seconds = time.process_time() + _LEAST_SECONDS + _TIMES_AS_LONG * self._seconds[test]
        resource.setrlimit(resource.RLIMIT_CPU, (ceil(seconds), resource.RLIM_INFINITY))
        return bool(_error(test))

    def _wait(self) -> None:
        """Wait until one of the running mutants has ended."""
        child, status = os.wait()
        self._note(*self._running.pop(child), os.waitstatus_to_exitcode(status))

    def _note(self, file: Path, name: str, code: int) -> None:
        meta = self._files[file]
        meta["exit_code_by_key"][name] = code
        whole = file.with_suffix(".new")
        whole.write_text(json.dumps(meta, indent=4), "utf-8")
        whole.replace(file)  # so the file is complete even if the run is stopped
        self._tried += 1
        if self._tried % _TOLD_AFTER == 0:
            print(f"{self._tried} mutants tried", flush=True)


def _empty_caches() -> None:
    """Clear the core's caches after the run without a mutant: a mutant of a cached function would never be called."""
    for each in gc.get_objects():
        if isinstance(each, _lru_cache_wrapper) and each.__module__.startswith(PACKAGE):
            each.cache_clear()


def _error(item: pytest.Item) -> str:
    """The error of a test that fails; empty if it passes."""
    reports = runtestprotocol(item, log=False, nextitem=None)
    return next((report.longreprtext or "failed" for report in reports if report.failed), "")


if __name__ == "__main__":
    sys.exit(main())
