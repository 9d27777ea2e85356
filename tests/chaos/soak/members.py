"""The consumers of the soak as an orchestrator would run them: started, probed, watched, and started again.

In: settings. Out: processes that can be killed, frozen and stopped; their probes, metrics and memory; a record of
what was done to each, and of what they did unasked.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from running import FLAGPOST, Series, check_books, environment, read_series

START_SECONDS = 60.0
PROBE_SECONDS = 5.0
LIVENESS_SECONDS = 30.0
"""After so long without a good answer of /livez a process is killed, as by Kubernetes."""
STOP_SECONDS = 60.0
CLEAN_EXITS = (0, 1)
STOPPED = "stopped"
"""How an ending is called that may cost no repeat."""
FROZEN_SHORT = "frozen for a moment"
"""How a freeze is called that may cost none either: the group does not notice it."""


class Member:
    """One `flagpost consume`."""

    def __init__(self, name: str, settings: Mapping[str, object], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        quick = {"admin.host": "127.0.0.1", "admin.port": 0, "log.format": "json"}
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                [str(FLAGPOST), "consume"],
                env=environment({**quick, **settings}),
                stdout=subprocess.DEVNULL,
                stderr=out,
            )
        self.process_id = self._process.pid
        self.admin_url = ""
        self.started_at = time.monotonic()
        self.is_frozen = False
        self.is_leaving = False
        self.live_at = time.monotonic()
        """When /livez was last good, or could not be asked."""
        self.live = self.ready = True
        self.peak_rss_bytes = 0
        self.rss_bytes = 0

    def await_admin(self) -> None:
        """Block until it says where its probes are."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.exit_code is None:
            for line in self.log.read_text(errors="replace").splitlines():
                if line.startswith("admin http://"):
                    self.admin_url = line.removeprefix("admin ")
                    return
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"flagpost consume did not start:\n{self.last_words()}")

    @property
    def exit_code(self) -> int | None:
        """None: it runs."""
        return self._process.poll()

    @property
    def answers(self) -> bool:
        """Whether it can be asked anything."""
        return bool(self.admin_url) and self.exit_code is None and not self.is_frozen

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait."""
        self.send(signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> int | None:
        """Block until it has ended; returns the exit code, None when it has not."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def last_words(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path: str) -> tuple[int, bytes]:
        """GET of the admin server; status 0 where it does not answer in time."""
        try:
            with urllib.request.urlopen(self.admin_url + path, timeout=PROBE_SECONDS) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def probe(self) -> None:
        """Ask both probes."""
        self.live, self.ready = self.get("/livez")[0] == 200, self.get("/readyz")[0] == 200
        if self.live or not self.answers:
            self.live_at = time.monotonic()

    def measure(self) -> None:
        """Read its memory; a process that has just ended keeps the last figures."""
        try:
            status = Path(f"/proc/{self.process_id}/status").read_text()
        except OSError:
            return
        figures = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Vm"))
        if "VmHWM" in figures:
            self.peak_rss_bytes = int(figures["VmHWM"].split()[0]) * 1024
            self.rss_bytes = int(figures["VmRSS"].split()[0]) * 1024

    def scrape(self) -> Series | None:
        """Its metrics, whose books balance; None where it does not answer."""
        status, page = self.get("/metrics")
        if status != 200:
            return None
        series = read_series(page.decode())
        check_books(series)
        return series

    def status(self) -> Any:
        """/status, parsed; None where it does not answer."""
        status, page = self.get("/status")
        return orjson.loads(page) if status == 200 else None


@dataclass(frozen=True, slots=True)
class Ending:
    """A process that ended, or was frozen, and why."""

    member: str
    how: str
    began: float
    ended: float
    """Of a freeze: when it went on. Monotonic."""


class Members:
    """All of them."""

    def __init__(self, settings: Mapping[str, object], track_url: str, directory: Path) -> None:
        self._settings = settings
        self._track_url = track_url
        self._directory = directory
        self._started = 0
        self.running: dict[str, Member] = {}
        self.endings: list[Ending] = []
        self.unasked: list[str] = []
        """What they did that nobody had asked for."""
        self.peak_rss_bytes = 0
        self.log_bytes: dict[str, int] = {}

    async def start(self) -> Member:
        """Start one; its name is in the query of what it sends."""
        self._started += 1
        name = f"c{self._started}"
        settings = {**self._settings, "pendo.track_url": f"{self._track_url}?by={name}"}
        member = Member(name, settings, self._directory)
        self.running[name] = member
        await asyncio.to_thread(member.await_admin)
        return member

    async def kill(self, member: Member) -> None:
        """kill -9, and another in its place."""
        began = time.monotonic()
        self._let_go(member)
        await asyncio.to_thread(member.kill)
        self.endings.append(Ending(member.name, "killed", began, time.monotonic()))
        await self.start()

    async def terminate(self, member: Member) -> None:
        """SIGTERM, and another in its place; it must end in time."""
        began = time.monotonic()
        member.is_leaving = True
        member.send(signal.SIGTERM)
        code = await asyncio.to_thread(member.wait, STOP_SECONDS)
        self._let_go(member)
        if code is None:
            self.unasked.append(f"{member.name} had not ended {STOP_SECONDS:g} s after SIGTERM")
            await asyncio.to_thread(member.kill)
        elif code not in CLEAN_EXITS:
            self.unasked.append(f"{member.name} ended with code {code} after SIGTERM")
        how = STOPPED if code == 0 else "stopped, not clean"
        self.endings.append(Ending(member.name, how, began, time.monotonic()))
        await self.start()

    async def freeze(self, member: Member, seconds: float, how: str) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        began = time.monotonic()
        member.is_frozen = True
        member.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            member.send(signal.SIGCONT)
            member.is_frozen = False
            member.live_at = time.monotonic()
        self.endings.append(Ending(member.name, how, began, time.monotonic()))

    async def watch(self) -> None:
        """Probe and measure all; what ended unasked, or is not live for long, is replaced."""
        for member in list(self.running.values()):
            member.measure()
            if member.answers:
                await asyncio.to_thread(member.probe)
            await self._replace_if_dead(member)
        self.peak_rss_bytes = max([self.peak_rss_bytes, *(m.peak_rss_bytes for m in self.running.values())])

    async def close(self) -> None:
        """End all."""
        for member in self.running.values():
            member.send(signal.SIGCONT)
            await asyncio.to_thread(member.kill)

    def _let_go(self, member: Member) -> None:
        self.running.pop(member.name, None)
        self.peak_rss_bytes = max(self.peak_rss_bytes, member.peak_rss_bytes)

    async def _replace_if_dead(self, member: Member) -> None:
        if member.is_leaving or member.name not in self.running or not member.admin_url:
            return
        if member.exit_code is not None:
            self.unasked.append(
                f"{member.name} ended by itself, code {member.exit_code}:\n{member.last_words()}"
            )
        elif not member.is_frozen and time.monotonic() - member.live_at > LIVENESS_SECONDS:
            said = (await asyncio.to_thread(member.get, "/livez"))[1].decode(errors="replace").strip()
            self.unasked.append(f"{member.name} was not live for {LIVENESS_SECONDS:g} s: {said}")
        else:
            return
        await self.kill(member)
