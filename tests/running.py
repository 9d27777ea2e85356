"""Runs our programs as processes, `flagpost consume` among them, for the integration and end-to-end tests.

In: settings as environment variables. Out: a running consumer that can be scraped, asked and stopped.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import psutil
from prometheus_client.parser import text_string_to_metric_families

from deadlines import stretched
from plain_logs import require_plain
from warm_starts import WarmProcess, run

FLAGPOST = Path(sys.executable).with_name("flagpost")
START_SECONDS = 30.0

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment, in which these settings (by dotted key) are the only FLAGPOST_ variables."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("FLAGPOST_")}
    ours = {
        "FLAGPOST_" + key.upper().replace(".", "__"): value
        if isinstance(value, str)
        else orjson.dumps(value).decode()
        for key, value in settings.items()
    }
    return {**outside, **ours}


async def eventually(reached: Callable[[], object], seconds: float = 30.0, *, what: str = "") -> None:
    """Wait for a condition; fails with `what` if it does not hold in time."""
    began = time.monotonic()
    while not reached():
        waited = time.monotonic() - began
        assert waited < stretched(seconds), f"not reached in {seconds} s: {what or reached}"
        await asyncio.sleep(next_pause(waited))


def next_pause(waited_seconds: float, least: float = 0.02, most: float = 0.1) -> float:
    """Seconds until a condition is checked again: a twentieth of the wait so far, because many checks are scrapes."""
    return min(max(least, waited_seconds / 20), most)


def flagpost(
    settings: Mapping[str, object], *arguments: str | Path, seconds: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run a command with these settings (by dotted key), to its end; a deadline of `seconds` is stretched."""
    return run([FLAGPOST, *arguments], environment(settings), stretched(seconds))


Begun = WarmProcess | subprocess.Popen[bytes]
"""A program that was started; its stderr is a pipe."""


def begin_warm(command: Sequence[str], environ: Mapping[str, str]) -> Begun:
    """Start a program where Python has imported it."""
    return WarmProcess(command, environ, stderr=subprocess.PIPE)


def begin_cold(command: Sequence[str], environ: Mapping[str, str]) -> Begun:
    """Start a program as its users do. It has only what it needs in its memory, and ends with its interpreter."""
    return subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


begin: Callable[[Sequence[str], Mapping[str, str]], Begun] = begin_warm
"""How programs start; the fixture `cold_starts` changes it for a test."""


def left_running() -> list[str]:
    """What no test has ended. It would go on to ask for its broker, at a port that another test has by then."""
    return sorted(str(each) for each in _started if each.is_running)


class RunningProgram:
    """One of our programs, and the lines of its log. A context manager."""

    def __init__(self, command: Sequence[str], settings: Mapping[str, object]) -> None:
        self._name = " ".join([Path(command[0]).name, *command[1:]])
        self._process = begin(command, environment({"log.format": "json", **settings}))
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.process_id = self._process.pid
        _started.add(self)

    def __str__(self) -> str:
        return f"{self._name}, process {self.process_id}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """Kill it if it runs. After an error, print its output; otherwise check that its log lines are plain."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        _started.discard(self)
        self._reader.join(stretched(5))
        if self._process.stderr is not None:
            self._process.stderr.close()
        if error is not None:
            sys.stderr.write("\n".join([f"{self._name} said:", *self.lines[-40:]]) + "\n")
        else:
            require_plain(self.lines)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of an event, so far."""
        return [entry for entry in map(orjson.loads, self._entries()) if entry["event"] == event]

    def _entries(self) -> list[str]:
        return [line for line in list(self.lines) if line.startswith("{") and line.endswith("}")]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def wait(self, seconds: float = 60.0) -> int:
        """Wait for the end; returns the exit code. The event loop keeps running, so servers on it still answer."""
        code = await asyncio.to_thread(self._process.wait, stretched(seconds))
        await asyncio.to_thread(self._reader.join, stretched(5))
        return code

    async def stop(self, seconds: float = 60.0) -> int:
        """Send SIGTERM, and wait for the end; returns the exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait(seconds)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def peak_bytes(self) -> int:
        """The process's highest resident memory so far."""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    @property
    def cpu_seconds(self) -> float:
        """The user and system time that the process has used so far."""
        times = psutil.Process(self.process_id).cpu_times()
        return times.user + times.system

    def await_address(self, word: str) -> str:
        """Wait for the line in which the program says where it listens; returns the URL."""
        deadline = time.monotonic() + stretched(START_SECONDS)
        while not (found := self.address(word)) and time.monotonic() < deadline and self.is_running:
            self._reader.join(0.02)
        if not found:
            self._process.kill()
            raise AssertionError(f"{self._name} did not start:\n" + "\n".join(self.lines))
        return found

    def address(self, word: str) -> str:
        """The URL in that line; empty if the line was not written yet."""
        lines = [line for line in list(self.lines) if line.startswith(f"{word} http://")]
        return lines[0].removeprefix(f"{word} ") if lines else ""

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.decode().rstrip())


_started: set[RunningProgram] = set()
"""Those whose end was not waited for."""


class RunningConsumer(RunningProgram):
    """One `flagpost consume`."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        quick = {"admin.host": "127.0.0.1", "admin.port": 0}
        super().__init__([str(FLAGPOST), "consume"], {**quick, **settings})
        self.admin_url = self.await_address("admin")

    def get(self, path: str) -> tuple[int, bytes]:
        """GET an admin endpoint; returns status and body."""
        try:
            with urllib.request.urlopen(self.admin_url + path, timeout=stretched(10)) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def status(self) -> dict[str, Any]:
        """/status, parsed."""
        return orjson.loads(self.get("/status")[1])  # type: ignore[no-any-return]

    def scrape(self) -> Series:
        """All series of /metrics; checks that the numbers of deliveries add up."""
        series = read_series(self.get("/metrics")[1].decode())
        check_books(series)
        return series

    def value(self, name: str, **labels: str) -> float:
        """The value of one series; checks the numbers as every scrape does."""
        return self.scrape()[name, tuple(sorted(labels.items()))]

    async def caught_up(self, partitions: int, seconds: float = 60.0) -> None:
        """Wait until this consumer has this many partitions and has settled all their records."""
        try:
            await eventually(lambda: is_caught_up([self.scrape()], partitions), seconds, what="caught up")
        except AssertionError:
            raise AssertionError(f"not caught up in {seconds} s: {self.status()}") from None


def read_series(text: str) -> Series:
    """The series of a page of metrics without timestamps, as our programs write it."""
    samples = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {_series_named(name): float(value) for name, _, value in samples}


@lru_cache(maxsize=10_000)
def _series_named(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Name and labels of a series, of its text. They are parsed once: every scrape of a test repeats them."""
    (family,) = text_string_to_metric_families(f"{text} 0\n")
    (sample,) = family.samples
    return sample.name, tuple(sorted(sample.labels.items()))


def is_caught_up(scrapes: list[Series], partitions: int) -> bool:
    """Whether a group, by its members' scrapes, has all of its partitions, nothing pending and no lag.

    Nothing pending is not enough: that is also true before the first record.
    """
    pending = sum(total(series, "flagpost_deliveries_pending") for series in scrapes)
    lags = [lag for series in scrapes for (name, _), lag in series.items() if name == "flagpost_consumer_lag"]
    return pending == 0 and lags == [0.0] * partitions


def check_books(series: Series) -> None:
    """Check, for each kind: planned = delivered + duplicate + dropped + dead_lettered + returned + pending."""
    kinds = {dict(labels)["kind"] for name, labels in series if name == "flagpost_deliveries_planned_total"}
    assert kinds == {"track", "visitor_metadata", "account_metadata", "unknown"}
    for kind in kinds:
        settled = total(series, "flagpost_deliveries_total", kind=kind)
        one = (("kind", kind),)
        others = (
            series["flagpost_deliveries_returned_total", one] + series["flagpost_deliveries_pending", one]
        )
        planned = series["flagpost_deliveries_planned_total", one]
        assert planned == settled + others, f"the books of {kind} do not balance"


def total(series: Series, name: str, **labels: str) -> float:
    """The sum of the series of a name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (of, have), value in series.items() if of == name and wanted.issubset(have))
