"""The record of what was received: requests, broken rules, counters.

In: each request with its result. Out: lists and counts to assert on, and a way to wait for them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

import orjson

from flagpost_consumer.demo.pendo_stand_in.aggregation import DAY_MS, Tallied, Tally
from flagpost_consumer.demo.pendo_stand_in.rules import Breach, Rule, TrackEvent
from flagpost_consumer.demo.pendo_stand_in.traffic import Answer, Arrival, Ending, Endpoint

Decision = tuple[str, str | None]
"""A flag's key, and the variation as sent; None if the decision was sent without one."""


class Fate(StrEnum):
    """What happened to a request's content."""

    RECORDED = "recorded"
    IGNORED = "ignored"
    """Too old: answered with 200, but not processed."""
    NOT_RECORDED = "not_recorded"


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    number: int
    """Its place in the order of arrival, from 0."""
    at_seconds: float
    """Monotonic."""
    wall_ms: int
    endpoint: Endpoint
    path: str
    content_type: str
    body: bytes
    """As received; empty where bodies are not kept."""
    visitor_id: str | None
    """For a track request."""
    ending: Ending
    status: int
    """The status of the answer; 0 if there was no answer."""
    fate: Fate

    @property
    def parsed(self) -> object:
        """The body's JSON. Raises orjson.JSONDecodeError if it is not JSON."""
        return orjson.loads(self.body)

    def as_json(self) -> dict[str, object]:
        """The request as a JSON object, for another process."""
        own = {name: getattr(self, name) for name in self.__slots__}
        return {**own, "body": self.body.decode(errors="replace")}


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule of Pendo's that a request broke."""

    rule: Rule
    detail: str
    id: str | None
    """The visitor or account, if known."""
    endpoint: Endpoint
    request: int
    """The request's number."""
    at_seconds: float


class ReceivedLog(Sequence[Received]):
    """Every request in the order of arrival (without bodies: only the newest), with counters over all."""

    def __init__(self, *, keep_bodies: bool = True, newest_kept: int | None = None) -> None:
        self._keep_bodies = keep_bodies
        self._kept: deque[Received] = deque(maxlen=None if keep_bodies else newest_kept)
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self.violations: list[Violation] = []
        self._forget_counts()

    def _forget_counts(self) -> None:
        self.total = 0
        """Requests to any endpoint, kept or not."""
        self.outcomes: Counter[tuple[Endpoint, str]] = Counter()
        """Requests by endpoint and result: a status, or hang, close, not_http."""
        self.fates: Counter[tuple[Endpoint, Fate]] = Counter()
        self.events: Counter[str] = Counter()
        """Recorded track events by name."""
        self.decisions: Counter[Decision] = Counter()
        """Recorded track events that carry a flag_key, by flag and variation."""
        self.anonymous = 0
        """Recorded track events of visitors that Pendo counts as anonymous, by their ids."""
        self.tallies: dict[Tally, Tallied] = {}
        """Recorded track events by what the aggregation endpoint groups them by."""
        self.metadata_records = 0
        """Records of metadata requests that were stored."""
        self._bodies: Counter[int] = Counter()
        self._in_flight: Counter[Endpoint] = Counter()
        self.most_in_flight: Counter[Endpoint] = Counter()
        """The greatest number of unanswered requests of an endpoint at one time."""

    def forget(self) -> None:
        """Forget all requests and counts; the next request has the number 0."""
        self._kept.clear()
        self.violations.clear()
        in_flight = self._in_flight
        self._forget_counts()
        self._in_flight = in_flight

    def __len__(self) -> int:
        """How many requests are kept."""
        return len(self._kept)

    def __iter__(self) -> Iterator[Received]:
        """The kept requests, oldest first."""
        return iter(self._kept)

    def __getitem__(self, index: int) -> Received:  # type: ignore[override]  # slices: use `since`
        """A kept request; -1 is the newest."""
        return self._kept[index]

    def since(self, number: int, limit: int) -> list[Received]:
        """The kept requests from a number on, at most `limit`."""
        first = self._kept[0].number if self._kept else 0
        start = max(0, number - first)
        return list(islice(self._kept, start, start + limit))

    def newest(self, limit: int) -> list[Received]:
        """The newest of the kept requests, at most `limit`, oldest first."""
        return list(islice(self._kept, max(0, len(self._kept) - limit), None))

    def of(self, endpoint: Endpoint) -> list[Received]:
        """The requests to an endpoint."""
        return [received for received in self._kept if received.endpoint is endpoint]

    def of_visitor(self, visitor_id: str) -> list[Received]:
        """The track requests of a visitor."""
        return [received for received in self._kept if received.visitor_id == visitor_id]

    def recorded(self, endpoint: Endpoint = Endpoint.TRACK) -> int:
        """How many requests to an endpoint were recorded."""
        return self.fates[endpoint, Fate.RECORDED]

    def repeats(self) -> int:
        """How many recorded track requests had exactly the same body as an earlier one."""
        return self.recorded() - len(self._bodies)

    def repeated_bodies(self) -> Counter[bytes]:
        """The bodies that were recorded more than once, if bodies are kept."""
        track = Counter(
            received.body
            for received in self._kept
            if received.endpoint is Endpoint.TRACK and received.fate is Fate.RECORDED
        )
        return Counter({body: count for body, count in track.items() if count > 1 and body})

    def counts(self) -> dict[str, object]:
        """All counters, for another process."""
        return {
            "requests": self.total,
            "outcomes": _nested(self.outcomes),
            "fates": _nested(self.fates),
            "events": dict(self.events),
            "decisions": [
                {"flag_key": flag, "variation_key": variation, "count": count}
                for (flag, variation), count in sorted(self.decisions.items(), key=repr)
            ],
            "anonymous": self.anonymous,
            "metadata_records": self.metadata_records,
            "repeats": self.repeats(),
            "violations": len(self.violations),
            "most_in_flight": {endpoint.value: most for endpoint, most in self.most_in_flight.items()},
        }

    async def until(self, condition: Callable[[], bool], timeout_seconds: float = 10.0) -> None:
        """Wait until a condition on this record holds. Raises TimeoutError.

        It is checked after each request, on the stand-in's own event loop.
        """
        if condition():
            return
        waiting = (condition, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await asyncio.wait_for(waiting[1], timeout_seconds)
        except TimeoutError:
            raise TimeoutError(
                f"not in {timeout_seconds} s; requests by outcome so far: {_nested(self.outcomes)}"
            ) from None
        finally:
            self._waiting.remove(waiting)

    def begin(self, endpoint: Endpoint) -> None:
        """A request has arrived, and is not answered yet."""
        self._in_flight[endpoint] += 1
        self.most_in_flight[endpoint] = max(self.most_in_flight[endpoint], self._in_flight[endpoint])

    def end(self, endpoint: Endpoint) -> None:
        """A request was answered, or never will be."""
        self._in_flight[endpoint] -= 1

    def add(
        self, arrival: Arrival, answer: Answer, fate: Fate, visitor_id: str | None, breaches: Sequence[Breach]
    ) -> None:
        """Note a request and its result."""
        endpoint = arrival.route.endpoint
        received = Received(
            number=self.total,
            at_seconds=arrival.at_seconds,
            wall_ms=arrival.wall_ms,
            endpoint=endpoint,
            path=arrival.path,
            content_type=arrival.content_type,
            body=arrival.body if self._keep_bodies else b"",
            visitor_id=visitor_id,
            ending=answer.ending,
            status=answer.status,
            fate=fate,
        )
        self._kept.append(received)
        self.total += 1
        self.outcomes[endpoint, str(answer.status or answer.ending.value)] += 1
        self.fates[endpoint, fate] += 1
        for breach in breaches:
            self._add_violation(received, breach)
        self._tell_waiting()

    def count_track(self, event: TrackEvent, body: bytes) -> None:
        """Count the content of a recorded track request."""
        self.events[event.event or ""] += 1
        # A 64-bit hash instead of the body: a million events take 100 MB less.
        self._bodies[hash(body)] += 1
        self.anonymous += event.is_anonymous
        if event.flag_key is not None:
            self.decisions[event.flag_key, event.variation_key] += 1
        day = (event.timestamp_ms or 0) // DAY_MS
        tally = Tally(event.event or "", day, event.flag_key, event.variation_key)
        found = self.tallies.setdefault(tally, Tallied())
        found.events += 1
        if event.flag_key is not None:
            found.visitors.add(hash(event.visitor_id))

    def _add_violation(self, received: Received, breach: Breach) -> None:
        self.violations.append(
            Violation(
                breach.rule,
                breach.detail,
                breach.id if breach.id is not None else received.visitor_id,
                received.endpoint,
                received.number,
                received.at_seconds,
            )
        )

    def _tell_waiting(self) -> None:
        for condition, future in self._waiting:
            if not future.done() and condition():
                future.set_result(None)


def _nested(
    counter: Counter[tuple[Endpoint, str]] | Counter[tuple[Endpoint, Fate]],
) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (endpoint, name), count in counter.items():
        nested.setdefault(endpoint.value, {})[str(name)] = count
    return nested
