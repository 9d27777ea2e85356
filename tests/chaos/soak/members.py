"""The soak's consumers, run as an orchestrator would run them: started, probed, watched and restarted.

In: settings. Out: processes that can be killed, frozen and stopped; their probes, metrics and memory; notes of what
was done to each, and of what they did without being asked.
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
"""A process without a good answer of /livez for this long is killed, as Kubernetes does."""
STOP_SECONDS = 60.0
CLEAN_EXITS = (0, 1)
STOPPED = "stopped"
"""The name of an ending after which nothing may be sent again."""
FROZEN_SHORT = "frozen for a moment"
"""The name of a freeze that the group does not notice: nothing may be sent again after it either."""


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
        """When /livez was last good, or the process could not be asked (it is frozen, or not running)."""
        self.live = self.ready = True
        self.peak_rss_bytes = 0
        self.rss_bytes = 0

    def await_admin(self) -> None:
        """Block until it prints the address of its admin server."""
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
        """None while it runs."""
        return self._process.poll()

    @property
    def answers(self) -> bool:
        """Whether its admin server can be asked."""
        return bool(self.admin_url) and self.exit_code is None and not self.is_frozen

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it has ended."""
        self.send(signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> int | None:
        """Block until it has ended; returns the exit code, or None if it has not ended in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def last_words(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path: str) -> tuple[int, bytes]:
        """GET a path of the admin server; returns status and body, status 0 if it does not answer in time."""
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
        """Its metrics, after a check that its accounts balance; None if it does not answer."""
        status, page = self.get("/metrics")
        if status != 200:
            return None
        series = read_series(page.decode())
        check_books(series)
        return series

    def status(self) -> Any:
        """/status, parsed; None if it does not answer."""
        status, page = self.get("/status")
        return orjson.loads(page) if status == 200 else None


@dataclass(frozen=True, slots=True)
class Ending:
    """The end or the freeze of a process, and its cause."""

    member: str
    how: str
    began: float
    ended: float
    """For a freeze: when the process continued. Both times are monotonic."""


class Members:
    """All consumers of the soak."""

    def __init__(self, settings: Mapping[str, object], track_url: str, directory: Path) -> None:
        self._settings = settings
        self._track_url = track_url
        self._directory = directory
        self._started = 0
        self.running: dict[str, Member] = {}
        self.endings: list[Ending] = []
        self.unasked: list[str] = []
        """What members did without being asked: they ended, or were not live."""
        self.peak_rss_bytes = 0
        self.log_bytes: dict[str, int] = {}

    async def start(self) -> Member:
        """Start a member; its name is in the query of its track requests."""
        self._started += 1
        name = f"c{self._started}"
        settings = {**self._settings, "pendo.track_url": f"{self._track_url}?by={name}"}
        member = Member(name, settings, self._directory)
        self.running[name] = member
        await asyncio.to_thread(member.await_admin)
        return member

    async def kill(self, member: Member) -> None:
        """Kill a member with SIGKILL, and start another in its place."""
        began = time.monotonic()
        self._let_go(member)
        await asyncio.to_thread(member.kill)
        self.endings.append(Ending(member.name, "killed", began, time.monotonic()))
        await self.start()

    async def terminate(self, member: Member) -> None:
        """Stop a member with SIGTERM, and start another in its place; it must end in time."""
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
        """Freeze a member with SIGSTOP, and let it continue with SIGCONT after `seconds`."""
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
        """Probe and measure all members; replace those that ended by themselves or are not live for too long."""
        for member in list(self.running.values()):
            member.measure()
            if member.answers:
                await asyncio.to_thread(member.probe)
            await self._replace_if_dead(member)
        self.peak_rss_bytes = max([self.peak_rss_bytes, *(m.peak_rss_bytes for m in self.running.values())])

    async def close(self) -> None:
        """Kill all members."""
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
