"""What goes wrong on purpose: typed faults, and when each one applies.

In: scripts by visitor, by endpoint, by chance, by outage. Out: the fault for each request as it arrives. Faults
change what a client is told; the rules that it breaks are recorded anyway.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import StrEnum

from flagpost_consumer.demo.pendo_stand_in.traffic import Ending, Endpoint


class RetryAfterForm(StrEnum):
    """The two forms of a Retry-After header (RFC 9110, 10.2.3)."""

    SECONDS = "seconds"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class Fault:
    """One difference from Pendo's answer; the default is none."""

    status: int | None = None
    """A status instead of Pendo's own. None, or a 2xx: the request is judged and recorded as usual."""
    ending: Ending = Ending.ANSWER
    recorded: bool = False
    """The request is recorded although the client does not learn it (its answer is lost, or is a 500)."""
    delay_seconds: float = 0.0
    """Between arrival and answer, added to the stand-in's latency; recording does not wait for it."""
    retry_after_seconds: float | None = None
    retry_after_form: RetryAfterForm = RetryAfterForm.SECONDS
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """A body instead of Pendo's own."""

    @property
    def is_pendos_own_answer(self) -> bool:
        """Whether the request is judged as usual."""
        return self.ending is Ending.ANSWER and (self.status is None or self.status // 100 == 2)

    def headers_at(self, wall_ms: int) -> Mapping[str, str]:
        """The headers of an answer at this moment."""
        if self.retry_after_seconds is None:
            return self.headers
        return {**self.headers, "Retry-After": self._retry_after(wall_ms, self.retry_after_seconds)}

    def _retry_after(self, wall_ms: int, seconds: float) -> str:
        if self.retry_after_form is RetryAfterForm.DATE:
            return formatdate(wall_ms / 1000 + seconds, usegmt=True)
        return f"{seconds:g}"


OK = Fault()
HANG = Fault(ending=Ending.HANG)
CLOSE_BEFORE_RECORDING = Fault(ending=Ending.CLOSE)
CLOSE_AFTER_RECORDING = Fault(ending=Ending.CLOSE, recorded=True)
NOT_HTTP = Fault(ending=Ending.NOT_HTTP)

Step = Fault | int
"""A fault, or only its status."""


def as_fault(step: Step) -> Fault:
    """The fault that answers with a status."""
    return Fault(status=step) if isinstance(step, int) else step


@dataclass(slots=True)
class _Script:
    steps: deque[Fault]
    afterwards: Fault

    def next(self) -> Fault:
        return self.steps.popleft() if self.steps else self.afterwards


@dataclass(slots=True)
class _Mix:
    chances: tuple[tuple[float, Fault], ...]
    random: random.Random

    def draw(self) -> Fault:
        lot = self.random.random()
        for chance, fault in self.chances:
            lot -= chance
            if lot < 0:
                return fault
        return OK


class Faults:
    """The faults that are scripted. The first of these that applies decides: an outage of the endpoint, the visitor's
    own script (track requests only), the endpoint's next steps, the random mix.
    """

    def __init__(self, latency_seconds: float = 0.0) -> None:
        self.latency_seconds = latency_seconds
        """Every answer is delayed by this."""
        self.failing_ids: dict[str, str] = {}
        """Metadata ids whose record fails, and the error in the answer."""
        self.poisoned_ids: set[str] = set()
        """Metadata ids for which the whole request is answered 400, without naming a record."""
        self._outages: dict[Endpoint, Fault] = {}
        self._visitors: dict[str, _Script] = {}
        self._endpoints: dict[Endpoint, _Script] = {}
        self._mix: _Mix | None = None

    def visitor(self, visitor_id: str, *steps: Step, afterwards: Step = OK) -> None:
        """Script a visitor's next track requests, one step for each; after them `afterwards` for all."""
        self._visitors[visitor_id] = _Script(deque(map(as_fault, steps)), as_fault(afterwards))

    def next(self, endpoint: Endpoint, *steps: Step) -> None:
        """Script the next requests of an endpoint, whoever sends them."""
        self._endpoints[endpoint] = _Script(deque(map(as_fault, steps)), OK)

    def outage(self, fault: Step, *endpoints: Endpoint) -> None:
        """Apply a fault to every request of these endpoints (without any, of all) until `restore`."""
        self._outages.update(dict.fromkeys(endpoints or Endpoint, as_fault(fault)))

    def restore(self, *endpoints: Endpoint) -> None:
        """End the outage of these endpoints (without any, of all)."""
        for endpoint in endpoints or Endpoint:
            self._outages.pop(endpoint, None)

    def mix(self, seed: int, chances: Iterable[tuple[float, Step]]) -> None:
        """Apply faults by chance: pairs of a probability (0 to 1, their sum at most 1) and a fault.

        The same seed gives the same faults in the order of arrival. ValueError for impossible probabilities.
        """
        pairs = tuple((chance, as_fault(step)) for chance, step in chances)
        if any(chance < 0 for chance, _ in pairs) or sum(chance for chance, _ in pairs) > 1:
            raise ValueError("mix: probabilities must be 0 or more, and their sum 1 at most")
        self._mix = _Mix(pairs, random.Random(seed))  # noqa: S311  repeatable faults, no secrets

    def clear(self) -> None:
        """Forget everything scripted, including the latency."""
        self.latency_seconds = 0.0
        self._mix = None
        for scripted in (self.failing_ids, self.poisoned_ids, self._outages, self._visitors, self._endpoints):
            scripted.clear()

    def strike(self, endpoint: Endpoint, visitor_id: str | None) -> Fault:
        """The fault for a request that just arrived; OK if there is none."""
        if endpoint in self._outages:
            return self._outages[endpoint]
        if visitor_id is not None and visitor_id in self._visitors:
            return self._visitors[visitor_id].next()
        if (script := self._endpoints.get(endpoint)) and script.steps:
            return script.next()
        return self._mix.draw() if self._mix else OK
