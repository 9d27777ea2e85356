"""Watches a soak: checks each second that everything that can make progress does, and prints figures each minute.

In: a running soak. Out: a table; complaints about late deliveries.

The bound: a delivery of a healthy visitor, track or metadata, is made or otherwise settled within DELIVERY_SECONDS of
the moment from which nothing excuses its waiting. That is the latest of three: when its record could be read from the
topic; the end of the last trouble that may hold its partition, plus that trouble's grace; and, if Pendo failed a
request about the same visitor, that failure plus the longest pause before the next attempt. Nothing else is an
excuse: no hot, poisonous or large record, no share of requests that Pendo fails, no dead letter that Kafka does not
accept.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos.soak.events import REGISTRY_PARTITION, Step, group_of, step_of
from chaos.soak.soak import Soak, holds
from chaos.soak.topics import Entry
from flagpost_consumer.core.backoff import CAP_SECONDS
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.demo.pendo_stand_in import Endpoint, Fate, Received

DELIVERY_SECONDS: Final = 15.0
RETRY_SECONDS: Final = CAP_SECONDS + 5.0
TELL_EVERY_SECONDS: Final = 20.0
"""Late deliveries are reported, with the members' states, at most this often."""
REQUESTS_TOLD: Final = 8
SCRAPE_EVERY: Final = 5
"""Seconds between two scrapes."""
RSS_LIMIT_BYTES: Final = 400 * 1024 * 1024
LOG_BYTES_A_MINUTE: Final = 5 * 1024 * 1024

HEADER: Final = (
    "min  published  delivered  requests  repeats  slowest s  late  waiting  RSS MB  live/ready  "
    "started  troubles"
)


@dataclass(slots=True)
class Minute:
    """The figures of one minute."""

    published: int = 0
    delivered: int = 0
    requests: int = 0
    repeats: int = 0
    slowest_seconds: float = 0.0
    """The longest that an event waited without an excuse."""
    measured: int = 0
    """How many times a delivery was seen waiting without an excuse; each one counts once a second."""
    late: set[Step] = field(default_factory=set)
    waiting: int = 0
    """Events of healthy visitors that are not delivered, at the end of the minute."""
    rss_bytes: int = 0
    probes: str = ""
    started: int = 0
    troubles: list[str] = field(default_factory=list)

    def row(self, number: int) -> str:
        """One line of the table."""
        slowest = f"{self.slowest_seconds:9.1f}" if self.measured else "        -"
        return (
            f"{number:3}  {self.published:9}  {self.delivered:9}  {self.requests:8}  {self.repeats:7}  {slowest}  "
            f"{len(self.late):4}  {self.waiting:7}  {self.rss_bytes / 2**20:6.0f}  {self.probes:>10}  "
            f"{self.started:7}  {', '.join(self.troubles)}"
        )


class Watch:
    """Measures a running soak."""

    def __init__(self, soak: Soak, directory: Path) -> None:
        self._soak = soak
        self._directory = directory
        self._life = 0
        self._read = 0
        """How many entries of the present life have been processed."""
        self._received = 0
        self._waiting: dict[Step, Entry] = {}
        """Track events that Pendo has not recorded."""
        self._metadata_waiting: dict[Step, Entry] = {}
        """Records whose metadata may not be settled yet."""
        self._delivered: set[Step] = set()
        self._failed_at: dict[tuple[Endpoint, str], float] = {}
        """When Pendo last failed a visitor's request to an endpoint."""
        self._requests: dict[tuple[Endpoint, str], deque[tuple[float, str]]] = {}
        """The latest requests about each visitor: when they arrived, and how they were answered."""
        self.minutes: list[Minute] = [Minute()]
        self.late: dict[Step, str] = {}
        """What was late, and what was going on at that time."""
        self.complaints: list[str] = []
        self._episodes = self._endings = 0
        self._log_bytes: dict[str, int] = {}
        self._told_late_at = -TELL_EVERY_SECONDS

    async def run(self) -> None:
        """Measure every second, until cancelled."""
        print(f"\n{HEADER}", flush=True)  # noqa: T201 - the table is the point
        tick = 0
        while True:
            await asyncio.sleep(1)
            tick += 1
            await self._soak.members.watch()
            self.take_in()
            late = self.judge_waiting(time.monotonic())
            if late:
                await self._tell_late(late)
            self._note_memory()
            if tick % SCRAPE_EVERY == 0:
                await self._scrape()
            if time.monotonic() - self._soak.began >= 60 * len(self.minutes):
                self.end_minute()

    def end_minute(self) -> None:
        """Print the row of the minute that is over."""
        minute, soak = self.minutes[-1], self._soak
        minute.waiting = len(self._waiting)
        running = soak.members.running.values()
        minute.probes = f"{sum(m.live for m in running)}/{sum(m.ready for m in running)}"
        minute.troubles = [episode.trouble.name for episode in soak.episodes[self._episodes :]]
        self._episodes = len(soak.episodes)
        minute.started = len(soak.members.endings) - self._endings
        self._endings = len(soak.members.endings)
        self._check_logs()
        print(minute.row(len(self.minutes)), flush=True)  # noqa: T201
        self.minutes.append(Minute())

    # New requests and records

    def take_in(self) -> None:
        """Process the requests and records that are new since the last call."""
        soak, minute = self._soak, self.minutes[-1]
        if self._life != len(soak.lives) - 1:
            # The operator has deleted the old topic, and with it the events that were not delivered.
            self._life, self._read = len(soak.lives) - 1, 0
            self._waiting.clear()
            self._metadata_waiting.clear()
        for received in soak.pendo.received.since(self._received, 1_000_000):
            self._received = received.number + 1
            visitors = list(visitors_of(received))
            for visitor in visitors:
                seen = self._requests.setdefault((received.endpoint, visitor), deque(maxlen=REQUESTS_TOLD))
                seen.append((received.at_seconds, f"{received.status} {received.fate.value}"))
            if received.status != 200:
                failed = dict.fromkeys(visitors, received.at_seconds)
                self._failed_at.update({(received.endpoint, v): at for v, at in failed.items()})
            if received.endpoint is Endpoint.TRACK:
                minute.requests += 1
                self._take_in_track(received)
        self._take_in_published()

    def _take_in_track(self, received: Received) -> None:
        if received.fate is Fate.RECORDED:
            parsed = received.parsed
            assert isinstance(parsed, dict)
            step, minute = step_of(parsed), self.minutes[-1]
            minute.repeats += step in self._delivered
            minute.delivered += 1
            self._delivered.add(step)
            self._waiting.pop(step, None)

    def _take_in_published(self) -> None:
        entries = self._soak.published.entries
        for entry in entries[self._read :]:
            self._read += 1
            content = entry.content
            self.minutes[-1].published += 1
            if not group_of(content.visitor).is_healthy:
                continue
            if Kind.VISITOR_METADATA in content.kinds:
                self._metadata_waiting[
                    f"metadata of {content.visitor}, partition {entry.partition}", entry.offset
                ] = entry
            if content.step is None:
                continue
            step = content.visitor, content.step
            if step not in self._delivered:
                self._waiting.setdefault(step, entry)

    # What is late

    def judge_waiting(self, now: float) -> dict[Step, Entry]:
        """Measure how long each delivery has waited without an excuse; returns those that have become late."""
        return {
            **self._judge(now, self._waiting, Endpoint.TRACK, Kind.TRACK),
            **self._judge(now, self._metadata_waiting, Endpoint.METADATA, Kind.VISITOR_METADATA),
        }

    def _judge(
        self, now: float, waiting: dict[Step, Entry], endpoint: Endpoint, kind: Kind
    ) -> dict[Step, Entry]:
        minute = self.minutes[-1]
        free_at = [self._free_at(number, now) for number in (0, REGISTRY_PARTITION)]
        new = {}
        for step, entry in list(waiting.items()):
            failed_at = self._failed_at.get((endpoint, entry.content.visitor), -RETRY_SECONDS)
            free = free_at[entry.partition == REGISTRY_PARTITION]
            waited = now - max(entry.seen_at, free, failed_at + RETRY_SECONDS)
            if waited <= 0:
                continue
            if self._is_settled(entry, kind):
                del waiting[step]
                continue
            minute.measured += 1
            minute.slowest_seconds = max(minute.slowest_seconds, waited)
            if waited > DELIVERY_SECONDS:
                minute.late.add(step)
                if step not in self.late:
                    new[step] = entry
        return new

    def _free_at(self, partition: int, now: float) -> float:
        """The moment from which nothing excuses that a partition stands still; in the future while a trouble does."""
        moments = [
            now + 1 if episode.ended is None else episode.ended + episode.trouble.grace_seconds
            for episode in self._soak.episodes
            if holds(episode.trouble, partition, REGISTRY_PARTITION)
        ]
        return max(moments, default=0.0)

    def _is_settled(self, entry: Entry, kind: Kind) -> bool:
        identity = (self._soak.published.topic_id, entry.partition, entry.offset, kind)
        return identity in self._soak.ledger.settled

    async def _tell_late(self, new: dict[Step, Entry]) -> None:
        """Note late deliveries, with the members' states at that moment."""
        soak = self._soak
        partitions = sorted({entry.partition for entry in new.values()})
        recent = [e.trouble.name for e in soak.episodes[-8:]]
        at = time.monotonic() - soak.began
        text = f"{len(new)} events late at {at:.0f} s, partitions {partitions}; before: {recent}"
        self.late.update(dict.fromkeys(new, text))
        if at - self._told_late_at < TELL_EVERY_SECONDS:
            return
        self._told_late_at = at
        print(f"  LATE: {text}", flush=True)  # noqa: T201
        told_in = self._directory / f"late-{at:06.0f}.json"
        steps = {f"{visitor}/{step}": self._requests_about(entry) for (visitor, step), entry in new.items()}
        told = {"text": text, "steps": dict(list(steps.items())[:50]), "members": await self._states()}
        told_in.write_text(json.dumps(told, indent=1))

    def _requests_about(self, entry: Entry) -> dict[str, list[str]]:
        """The latest requests about a visitor, and how many seconds ago they were."""
        now = time.monotonic()
        return {
            endpoint.value: [f"{now - at:.1f} s ago: {what}" for at, what in seen]
            for endpoint in Endpoint
            if (seen := self._requests.get((endpoint, entry.content.visitor)))
        }

    async def _states(self) -> dict[str, object]:
        """What each member reports about itself."""
        states: dict[str, object] = {}
        for name, member in list(self._soak.members.running.items()):
            if not member.answers:
                continue
            page = (await asyncio.to_thread(member.get, "/metrics"))[1].decode()
            states[name] = {
                "live": member.live,
                "ready": member.ready,
                "status": await asyncio.to_thread(member.status),
                "stalled": [line for line in page.splitlines() if line.startswith("flagpost_stalled{")],
            }
        return states

    # The members

    def _note_memory(self) -> None:
        running = self._soak.members.running.values()
        self.minutes[-1].rss_bytes = max([self.minutes[-1].rss_bytes, *(m.peak_rss_bytes for m in running)])

    async def _scrape(self) -> None:
        for member in list(self._soak.members.running.values()):
            if not member.answers:
                continue
            try:
                await asyncio.to_thread(member.scrape)
            except AssertionError as error:
                self.complaints.append(f"{member.name}: {error}")

    def _check_logs(self) -> None:
        for member in self._soak.members.running.values():
            size = member.log.stat().st_size
            grown = size - self._log_bytes.get(member.name, 0)
            self._log_bytes[member.name] = size
            if grown > LOG_BYTES_A_MINUTE:
                self.complaints.append(f"{member.name} wrote {grown / 2**20:.0f} MB of log in a minute")


def visitors_of(received: Received) -> Iterable[str]:
    """The visitors that a request to Pendo is about."""
    if received.endpoint is Endpoint.METADATA:
        records = received.parsed
        assert isinstance(records, list)
        return [record["visitorId"] for record in records]
    return [] if received.visitor_id is None else [received.visitor_id]
