"""Whether another request may start at one of Pendo's endpoints, and what its answers say of it as a whole.

In: the start of each request and what its answer means. Out: when the next request may start, whether intake
must pause, and which deliveries turn out to be poison.

Three modes. NORMAL: requests up to a limit that adapts. SUSPECT: as before, but one visitor's request met an answer
that says "set up wrongly", and the next answer to another visitor tells whether it is that delivery or all of
them. DOWN: one probe at a time, from 1 s doubling to 30 s. A single visitor that fails never takes the endpoint
down: its own backoff spaces its tries, and only another visitor's delivery could tell more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, StrEnum

from flagpost_consumer.core.backoff import next_probe_delay
from flagpost_consumer.core.budget import Budget

FAILURES_THAT_OPEN = 10
"""Transient failures in a row, without a 2xx, after which the endpoint counts as unreachable."""
THROTTLED_VISITORS_THAT_HOLD = 3
THROTTLE_WINDOW_SECONDS = 10.0


class EndpointState(StrEnum):
    """What `flagpost_pendo_state` shows."""

    OK = "ok"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"


class _Mode(Enum):
    NORMAL = "normal"
    SUSPECT = "suspect"
    DOWN = "down"


@dataclass(slots=True, eq=False)
class Ticket:
    """Leave to make one request; it is handed back with the answer."""

    who: str
    """The visitor, or for metadata the first id of the batch."""
    number: int
    """Tickets are numbered in the order in which their requests start."""


class Endpoint:
    """The state of one endpoint."""

    def __init__(self, max_in_flight: int, budget: Budget) -> None:
        self._max_in_flight = max_in_flight
        self.budget = budget
        self.in_flight = 0
        self.successes = 0
        """How many 2xx there have been."""
        self._tickets = 0
        self._limit = float(max_in_flight)
        self._slow_start_until = float(max_in_flight)
        self._mode = _Mode.NORMAL
        self._cause = EndpointState.OK
        self._refused_at_ticket = 0
        self._refusals_count_after_ticket = 0
        self._suspect: str | None = None
        self._suspect_refused_again = False
        self._last_probed: str | None = None
        self._probe: Ticket | None = None
        self._probe_at = 0.0
        self._probe_delay = 0.0
        self._failures = 0
        self._failing: set[str] = set()
        self._throttles: deque[tuple[float, str]] = deque()
        self._throttled = False
        self._held_at_ticket = 0
        self._held_until = 0.0
        self._hold_delay = 0.0

    # What may start

    def opens_at(self, now: float) -> float | None:
        """When a request may start: `now` if at once, None if only an answer can tell."""
        allowed = self._allowed_at(now)
        if allowed is None or allowed > now:
            return allowed
        return self.budget.opens_at(now)

    def _allowed_at(self, now: float) -> float | None:
        if self._probes:
            return None if self._probe else max(now, self._probe_at, self._held_until)
        return None if self.in_flight >= int(self._limit) else now

    @property
    def _probes(self) -> bool:
        """Whether one request at a time must do, until one passes."""
        return self._mode is _Mode.DOWN or self._throttled

    @property
    def avoid(self) -> str | None:
        """Whose request should not be the next one, if there is another's."""
        return self._suspect if self._mode is _Mode.SUSPECT else self._last_probed

    def start(self, who: str) -> Ticket:
        """Start a request; `opens_at` said that one may."""
        self.budget.spend()
        self.in_flight += 1
        self._tickets += 1
        ticket = Ticket(who, self._tickets)
        if self._probes:
            self._probe = ticket
            self._last_probed = who
        return ticket

    # What is known

    @property
    def state(self) -> EndpointState:
        """The state that operators see."""
        if self._mode is _Mode.DOWN or self._suspect_refused_again:
            return self._cause
        if self._failures >= FAILURES_THAT_OPEN:
            return EndpointState.UNREACHABLE
        return EndpointState.THROTTLED if self._throttled else EndpointState.OK

    @property
    def is_down(self) -> bool:
        """Whether new records could only wait: at least two visitors' requests failed, and none passed."""
        return self._mode is _Mode.DOWN

    @property
    def is_open(self) -> bool:
        """Whether deliveries wait for nothing but capacity."""
        return self._mode is _Mode.NORMAL and not self._throttled

    # Answers

    def succeeded(self, ticket: Ticket) -> str | None:
        """A 2xx. Gives the visitor whose delivery it shows to be poison, if there is one."""
        self._finish(ticket)
        self.successes += 1
        if not self._proves_health(ticket):
            return None
        poison = self._suspect if self._suspect != ticket.who else None
        if self._mode is _Mode.DOWN:
            self._limit, self._slow_start_until = 1.0, float(self._max_in_flight)
            self._refusals_count_after_ticket = ticket.number
        else:
            self._grow()
        self._recover(ticket)
        return poison

    def failed(self, ticket: Ticket, now: float) -> None:
        """A transient failure."""
        was_probe = self._finish(ticket)
        self._failures += 1
        self._failing.add(ticket.who)
        if self._mode is _Mode.DOWN:
            if was_probe:
                self._next_probe(now)
        elif self._failures >= FAILURES_THAT_OPEN and len(self._failing) > 1:
            self._go_down(EndpointState.UNREACHABLE, now)

    def refused(self, ticket: Ticket, now: float) -> None:
        """An answer that says that something is set up wrongly."""
        was_probe = self._finish(ticket)
        if ticket.number <= self._refusals_count_after_ticket:
            return
        self._failing.add(ticket.who)
        if self._mode is _Mode.DOWN and self._cause is EndpointState.UNAUTHORIZED:
            if was_probe:
                self._next_probe(now)
        elif self._mode is not _Mode.SUSPECT:
            self._suspect_one(ticket.who)
        elif ticket.who != self._suspect:
            self._go_down(EndpointState.UNAUTHORIZED, now)
        else:
            # Nobody else could try. The delivery's own retries are spaced by its backoff.
            self._suspect_refused_again = True

    def throttled(self, ticket: Ticket, retry_after: float | None, now: float) -> None:
        """A 429."""
        was_probe = self._finish(ticket)
        if self._mode is _Mode.DOWN:
            if was_probe:
                self._next_probe(now, retry_after or 0.0)
            return
        if self._throttled:
            if was_probe:
                self._hold(retry_after or 0.0, now)
            return
        self._throttles.append((now, ticket.who))
        while self._throttles[0][0] < now - THROTTLE_WINDOW_SECONDS:
            self._throttles.popleft()
        if len({who for _, who in self._throttles}) >= THROTTLED_VISITORS_THAT_HOLD:
            self._hold(retry_after or 0.0, now)

    def rejected(self, ticket: Ticket, now: float) -> None:
        """A final answer to one delivery; it says nothing of the endpoint."""
        if self._finish(ticket) and self._mode is _Mode.DOWN:
            self._next_probe(now)

    def secret_changed(self, now: float) -> None:
        """The credential is a new one: try at once, and believe no answer to the old one."""
        self._refusals_count_after_ticket = self._refused_at_ticket = self._tickets
        if self._mode is _Mode.SUSPECT:
            self._mode = _Mode.NORMAL
            self._cause = EndpointState.OK
            self._clear_suspect()
        self._probe = None
        self._probe_delay = 0.0
        self._probe_at = now

    # Inside

    def _finish(self, ticket: Ticket) -> bool:
        """Note the end of a request; whether it was the probe."""
        self.in_flight -= 1
        was_probe = ticket is self._probe
        if was_probe:
            self._probe = None
        return was_probe

    def _proves_health(self, ticket: Ticket) -> bool:
        """Whether a 2xx says that the endpoint works now: a refusal outweighs what started before it."""
        return self._cause is not EndpointState.UNAUTHORIZED or ticket.number > self._refused_at_ticket

    def _grow(self) -> None:
        if self._limit < self._max_in_flight:
            step = 1.0 if self._limit < self._slow_start_until else 1.0 / self._limit
            self._limit = min(float(self._max_in_flight), self._limit + step)

    def _recover(self, ticket: Ticket) -> None:
        self._mode = _Mode.NORMAL
        self._cause = EndpointState.OK
        self._clear_suspect()
        self._probe_delay = 0.0
        self._failures = 0
        self._failing.clear()
        if self._throttled and ticket.number > self._held_at_ticket:
            self._throttled = False
            self._hold_delay = 0.0
        if not self._throttled:
            self._last_probed = self._probe = None

    def _go_down(self, cause: EndpointState, now: float) -> None:
        self._mode = _Mode.DOWN
        self._cause = cause
        self._refused_at_ticket = self._tickets
        self._clear_suspect()
        self._probe = None
        self._probe_delay = 0.0
        self._next_probe(now)

    def _suspect_one(self, who: str) -> None:
        self._mode = _Mode.SUSPECT
        self._cause = EndpointState.UNAUTHORIZED
        self._refused_at_ticket = self._tickets
        self._suspect = who
        self._probe = None

    def _clear_suspect(self) -> None:
        self._suspect = None
        self._suspect_refused_again = False

    def _next_probe(self, now: float, at_least: float = 0.0) -> None:
        """Wait longer than before the probe that just ended."""
        self._probe_delay = next_probe_delay(self._probe_delay)
        self._probe_at = now + max(self._probe_delay, at_least)

    def _hold(self, retry_after: float, now: float) -> None:
        """Let nothing start for a while, then one request at a time; once one passes, half as many as before."""
        if not self._throttled:
            self._limit = max(1.0, self._limit / 2)
            self._slow_start_until = self._limit
        self._throttles.clear()
        self._throttled = True
        self._hold_delay = next_probe_delay(self._hold_delay)
        self._held_at_ticket = self._tickets
        self._held_until = now + max(retry_after, self._hold_delay)
