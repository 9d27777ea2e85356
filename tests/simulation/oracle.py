"""Judges a run: what was published, what Pendo received, and what the ledger says must agree.

In: what happens at the brokers and at Pendo, and when there was trouble. Out: complaints. It does not look inside the
consumers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_schemas import DecisionEvent, Decoder, decode_settlements
from simulation.broker import Broker, Commit, Entry
from simulation.loop import Process
from simulation.pendo import Fate, Pendo, Sight

INTERVAL_SECONDS = 0.1
PROGRESS_SECONDS = 10.0
"""What was published at least this long before the end is settled at the end."""
CROWDED_SECONDS = 50.0
"""The same for metadata where there are more visitors that always fail than connections; it is promised within 90 s
(docs/guarantees.md#progress-and-isolation).
"""
UNACKNOWLEDGED_SECONDS = 1.6
"""If the settlement of an answer is not in the ledger after this long, nothing more of its partition is sent."""
ADD_UP_SECONDS = 6.0
"""Troubles that are less than a session apart count as one."""
SUPPRESSED_SECONDS = 8.0
"""A consumer sends nothing of a suppressed visitor from this long after the suppression and the last trouble."""
ALARMS = {
    "offsets have gone back": {"go_back", "made_anew"},
    "a log has gone back": {"go_back", "made_anew"},  # while no broker tells ids, the two look the same
    "a topic was created again": {"made_anew"},
    "offsets are lost": {"retention"},
    "Kafka's client returns no records": set(),
    "a batch cannot be read": set(),
}
"""Log lines that the product may write only if one of these events has happened."""
KINDS = ("track", "visitor_metadata")


@dataclass(frozen=True, slots=True)
class Published:
    """One event, with its partition and offset."""

    event_id: str
    visitor: str
    flag: str
    occurred_at: int
    topic_id: str
    partition: int
    offset: int
    at: float

    @property
    def key(self) -> tuple[str, str, str]:
        """The key by which Pendo's track events are distinguished."""
        return self.visitor, self.flag, "a"


@dataclass(frozen=True, slots=True)
class Settled:
    """One settlement in the ledger."""

    at: float
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """A time in which a process (None: every process) may lose what it knows."""

    began: float
    ended: float
    process: Process | None
    delays_only: bool
    """Whether it loses nothing for good: what is sent again because of it was sent again too soon."""


class Oracle:
    """The judge of one run."""

    def __init__(self, broker: Broker, pendo: Pendo, note: Callable[[str], None]) -> None:
        self.complaints: list[str] = []
        self.published: dict[str, Published] = {}
        self._broker = broker
        self._pendo = pendo
        self._note = note
        self._settled: dict[tuple[str, str], list[Settled]] = defaultdict(list)
        """The ledger's settlements, by event id and kind."""
        self._delivered_at: dict[tuple[str, str, str], float] = {}
        """When the ledger first had each key of `Published.key` as delivered."""
        self._dead: set[tuple[str, str]] = set()
        self._gone: set[str] = set()
        """The ids of events that are no longer in a log."""
        self._troubles: list[Trouble] = []
        self._went_back: set[int] = set()
        self._checked: dict[tuple[str, int], int] = {}
        self._decoder = Decoder()
        self._causes: set[str] = set()
        self._suppressed: dict[str, float] = {}
        self._unacknowledged: dict[tuple[Process, int], list[Sight]] = defaultdict(list)
        """Requests that Pendo has accepted and whose settlement is not in the ledger yet."""
        self._sights_of: dict[tuple[str, str, str], list[Sight]] = defaultdict(list)
        self._made_anew_at = self._noticed_at = float("inf")
        """When the events topic was created again, and when the last process noticed it."""

    # What happens

    def publish(self, published: Published) -> None:
        """An event was published."""
        self.published[published.event_id] = published

    def trouble(self, process: Process | None, seconds: float, *, delays_only: bool = False) -> None:
        """A process (None: every process) has trouble for a time, from now on.

        Troubles that follow one another add up: together they may lose what each alone only delays.
        """
        now = self._broker.loop.now
        follows = any(
            now - each.ended < ADD_UP_SECONDS and (process is None or each.process in (None, process))
            for each in self._troubles
        )
        self._troubles.append(Trouble(now, now + seconds, process, delays_only and not follows))

    def is_troubled(self, process: Process, since: float, seconds: float) -> bool:
        """Whether a process has trouble at some time within these seconds."""
        return any(
            each.process in (None, process) and each.began <= since + seconds and since <= each.ended
            for each in self._troubles
        )

    def cause(self, what: str) -> None:
        """Note an event that allows the product to log the alarms it causes."""
        self._causes.add(what)

    def alarm(self, said: str, fields: str) -> None:
        """Check an alarm that the product has logged."""
        if said.startswith("a topic was created again"):
            self._noticed_at = self._broker.loop.now
        for alarm, causes in ALARMS.items():
            if said.startswith(alarm) and not causes & self._causes:
                self._complain(f"the product says {said!r}{fields}, but nothing of the kind has happened")

    def suppress(self, visitor: str) -> None:
        """A visitor is suppressed: from now on nothing of the visitor may be sent."""
        self._suppressed.setdefault(visitor, self._broker.loop.now)

    def request(self, sight: Sight) -> None:
        """Pendo receives a request."""
        number = partition_of(sight.visitor.encode(), self._broker.partitions)
        waiting = self._unacknowledged[sight.process, number]
        for older in waiting:
            if sight.at - older.heard_at > UNACKNOWLEDGED_SECONDS:
                self._complain(
                    f"request {sight.number} of {sight.process.name} is sent, and the ledger has not had the answer "
                    f"to {older.number} of the same partition for {sight.at - older.heard_at:.1f} s"
                )

    def heard(self, sight: Sight) -> None:
        """A consumer receives an answer."""
        if sight.fate is Fate.TAKEN and sight.event_key not in self._delivered_at:
            number = partition_of(sight.visitor.encode(), self._broker.partitions)
            self._unacknowledged[sight.process, number].append(sight)

    def given_up(self, process: Process, numbers: Iterable[int]) -> None:
        """A consumer no longer has these partitions."""
        for number in numbers:
            self._unacknowledged.pop((process, number), None)

    def gone(self, entries: Iterable[Entry]) -> None:
        """Records are no longer in a log."""
        self._gone.update(self._event_id(entry) for entry in entries)

    def went_back(self, number: int, entries: Iterable[Entry]) -> None:
        """A log has lost its newest records."""
        self._went_back.add(number)
        self.gone(entries)
        self.trouble(None, 0.0)
        self._unacknowledged.clear()

    def made_anew(self, entries: Iterable[Entry]) -> None:
        """The events topic was created again, without these records."""
        self._made_anew_at = self._broker.loop.now
        self.gone(entries)
        self.trouble(None, 0.0)
        self._unacknowledged.clear()

    def _event_id(self, entry: Entry) -> str:
        event = self._decoder.decode(entry.value)
        assert isinstance(event, DecisionEvent)
        return event.event_id

    def dead_letter(self, entry: Entry) -> None:
        """A record was written to the dead-letter topic."""
        kind = next(value for name, value in entry.headers if name == "flagpost-kind") or b""
        self._dead.add((self._event_id(entry), kind.decode()))

    def ledger_has(self, number: int, entry: Entry) -> None:
        """A record was written to the ledger; check its settlements."""
        now = self._broker.loop.now
        for each in decode_settlements(entry.value).entries:
            event_id = each.event_id or ""
            self._note(
                f"ledger {number}/{entry.offset}: {event_id} {each.offset} {each.kind} {each.outcome} {each.reason}"
            )
            self._settled[event_id, each.kind].append(Settled(now, each.outcome, each.reason))
            published = self.published.get(event_id)
            if published is None:
                self._complain(f"the ledger settles {event_id}, which was never published")
                continue
            self._check_reason(published, each.kind, each.outcome, each.reason)
            if each.kind == "track" and each.outcome == "delivered":
                self._delivered_at.setdefault(published.key, now)
                for waiting in self._unacknowledged.values():
                    waiting[:] = [sight for sight in waiting if sight.event_key != published.key]

    def _check_reason(self, published: Published, kind: str, outcome: str, reason: str) -> None:
        """Check that a settlement has a reason: a request, a duplicate, a suppression or a dead letter."""
        foundations: dict[tuple[str, str], Callable[[Published], bool]] = {
            ("delivered", "track"): self._was_taken,
            ("delivered", "visitor_metadata"): self._has_value,
            ("duplicate", "track"): self._is_repeated,
            ("dropped", kind): lambda each: reason == "suppressed" and each.visitor in self._suppressed,
            ("dead_lettered", kind): lambda each: (
                (each.event_id, kind) in self._dead and each.visitor in self._pendo.poison
            ),
        }
        is_founded = foundations.get((outcome, kind))
        if is_founded is not None and not is_founded(published):
            self._complain(
                f"{published.event_id} ({kind}) of {published.visitor} is settled {outcome}/{reason} without a reason"
            )

    def _was_taken(self, published: Published) -> bool:
        return any(
            sight.event_key == published.key and sight.occurred_at == published.occurred_at and sight.is_heard
            for sight in self._pendo.sights
        )

    def _has_value(self, published: Published) -> bool:
        return any(
            value.visitor == published.visitor and published.flag in value.field
            for value in self._pendo.values
        )

    def _is_repeated(self, published: Published) -> bool:
        """Whether another event has the same key, or this one was read again after it had been delivered."""
        return published.key in self._delivered_at or any(
            other.key == published.key and other.event_id != published.event_id
            for other in self.published.values()
        )

    def committed(self, process: Process, number: int, commit: Commit) -> None:
        """A position was committed; check that everything below it is settled."""
        said = dict(part.split("=", 1) for part in (commit.metadata or "").split(";") if "=" in part)
        topic = self._broker.topics["flagpost.events"]
        if said.get("topic", topic.id) != topic.id or number in self._went_back:
            return
        log = topic.logs[number]
        if commit.offset > log.end:
            self._complain(f"{process.name} commits {number}/{commit.offset} beyond the end {log.end}")
        before = self._checked.get((topic.id, number), 0)
        if commit.offset < before:
            self._complain(f"{process.name} commits {number}/{commit.offset} after {before}")
        for entry in log.read(before, 10_000):
            if entry.offset < commit.offset:
                self._check_settled(process, number, commit.offset, self._event_id(entry))
        self._checked[topic.id, number] = max(before, commit.offset)
        if commit.offset > before:
            self._note(f"committed {number}/{commit.offset} by {process.name}")

    def _check_settled(self, process: Process, number: int, offset: int, event_id: str) -> None:
        for kind in KINDS:
            if not self._settled.get((event_id, kind)):
                self._complain(
                    f"{process.name} commits {number}/{offset}, and {event_id} ({kind}) below is not settled"
                )

    # Judging

    def _complain(self, text: str) -> None:
        self.complaints.append(text)
        self._note(f"WRONG {text}")

    def look_at_the_end(self) -> None:
        """Check, after the calm, that everything that was published before it is settled."""
        now = self._broker.loop.now
        for published in self.published.values():
            if published.visitor in self._pendo.ailing or published.event_id in self._gone:
                continue
            for kind in KINDS:
                is_late = now - published.at >= self._patience_seconds(kind)
                if is_late and not self._settled.get((published.event_id, kind)):
                    self._complain(
                        f"{published.event_id} ({kind}) of {published.visitor} at {published.partition}/"
                        f"{published.offset}, published {now - published.at:.1f} s ago, is not settled"
                    )

    def _patience_seconds(self, kind: str) -> float:
        """How long before the end a delivery of this kind was published at the latest, if it is to be settled."""
        is_crowded = kind == "visitor_metadata" and self._pendo.ailing
        return CROWDED_SECONDS if is_crowded else PROGRESS_SECONDS

    def judge(self) -> None:
        """Check the requests of the whole run."""
        by_visitor: dict[str, list[Sight]] = defaultdict(list)
        for sight in self._pendo.sights:
            by_visitor[sight.visitor].append(sight)
            self._sights_of[sight.event_key].append(sight)
        self.complaints += self._invented()
        for visitor, sights in by_visitor.items():
            self.complaints += self._out_of_order(visitor, sights)
            self.complaints += self._too_fast(visitor, sights)
            self.complaints += self._of_suppressed(visitor, sights)
        for key, sights in self._sights_of.items():
            self.complaints += self._repeats(key, sights)

    def _invented(self) -> Iterator[str]:
        known = {(each.key, each.occurred_at) for each in self.published.values()}
        for sight in self._pendo.sights:
            if (sight.event_key, sight.occurred_at) not in known:
                yield f"Pendo was told {sight.event_key}, which nobody published"

    def _of_suppressed(self, visitor: str, sights: list[Sight]) -> Iterator[str]:
        """Requests of a suppressed visitor, sent when the consumer could know of the suppression."""
        since = self._suppressed.get(visitor)
        for sight in sights if since is not None else ():
            deaf_until = max(
                (each.ended for each in self._troubles if each.process in (None, sight.process)), default=0.0
            )
            if sight.at > max(since or 0.0, deaf_until) + SUPPRESSED_SECONDS:
                yield f"request {sight.number} is of {visitor}, suppressed {sight.at - (since or 0.0):.1f} s ago"

    def _out_of_order(self, visitor: str, sights: list[Sight]) -> Iterator[str]:
        """Steps of a visitor whose first request does not come in the order of their offsets."""
        newest = ""
        seen: set[str] = set()
        for sight in sights:
            step = sight.event_key[1]
            if not sight.fate.takes or step in seen:
                continue
            seen.add(step)
            if step < newest and not self._was_overtaken(visitor, step):
                yield f"{visitor}: {step} came after {newest} at Pendo"
            newest = max(newest, step)

    def _was_overtaken(self, visitor: str, step: str) -> bool:
        """Whether a step may be out of order: its record is no longer in the log, and another of the same key was
        sent later; or its topic was created again, and was read from the old topic's offset until that was noticed.
        """
        return any(
            each.visitor == visitor
            and each.flag == step
            and (each.event_id in self._gone or self._made_anew_at <= each.at <= self._noticed_at)
            for each in self.published.values()
        )

    def _too_fast(self, visitor: str, sights: list[Sight]) -> Iterator[str]:
        """Requests of a visitor less than an interval apart, counted from the answer if there was one in time."""
        for before, after in pairwise(sights):
            since = before.answered_at if before.fate not in {Fate.HANGS, Fate.LATE} else before.at
            if before.answered_at > after.at and before.heard_at == float("inf"):
                since = before.at
            if after.at < since + INTERVAL_SECONDS - 1e-6:
                yield f"{visitor}: requests {before.number} and {after.number} are {after.at - since:.3f} s apart"

    def _repeats(self, key: tuple[str, str, str], sights: list[Sight]) -> Iterator[str]:
        """Requests that repeat another one although neither its answer nor its settlement was lost."""
        taken = [sight for sight in sights if sight.fate.takes]
        for before, after in pairwise(taken):
            if before.is_heard and not self._is_excused(before, after, key):
                yield (
                    f"{key} was told again (requests {before.number} by {before.process.name}, {after.number} by "
                    f"{after.process.name}) though its answer came and nothing happened before the ledger had it"
                )

    def _is_excused(self, before: Sight, after: Sight, key: tuple[str, str, str]) -> bool:
        settled_at = self._delivered_at.get(key, float("inf"))
        return any(
            not trouble.delays_only
            and trouble.process in (None, before.process)
            and trouble.began <= after.at
            and trouble.ended >= before.at - 0.1
            and settled_at > trouble.began
            for trouble in self._troubles
        )

    def figures(self) -> dict[str, int]:
        """Counts of what happened in the run."""
        return {
            "published": len(self.published),
            "requests": len(self._pendo.sights),
            "settlements": sum(map(len, self._settled.values())),
        }
