"""Whether another request may start at one of Pendo's endpoints, and what its answers say of it as a whole.

In: the start of each request and the verdict on its answer. Out: when the next request may start, whether the
endpoint is down, and whether other visitors' requests passed since a moment.

There are two modes. NORMAL: requests up to a limit that adapts. DOWN: one probe at a time, after 1 s doubling to 30
s. Random failures (a few refusals, a few 429s) never take the endpoint down, however many requests there are: only
failures in a row, without a 2xx between them, of at least two visitors do. A single visitor that fails never takes it
down: its own backoff spaces its retries, and only another visitor's delivery could show more.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum, StrEnum

from flagpost_consumer.core.backoff import next_probe_delay
from flagpost_consumer.core.pendo.budget import Budget

FAILURES_THAT_OPEN = 10
"""Failures in a row, without a 2xx, after which the endpoint counts as down."""
THROTTLED_VISITORS_THAT_HOLD = 3
THROTTLED_SHARE_THAT_HOLDS = 0.05
"""429s hold the endpoint only if they are at least this share of the answers in the same time."""
THROTTLE_WINDOW_SECONDS = 10.0
MAX_REJECTED_PROBES = 1_000
"""Visitors whose probe was refused are remembered up to this number."""


class EndpointName(StrEnum):
    """Pendo's endpoints, as metrics name them."""

    TRACK = "track"
    METADATA = "metadata"


class EndpointState(StrEnum):
    """What `flagpost_pendo_state` shows."""

    OK = "ok"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"


class _Mode(Enum):
    NORMAL = "normal"
    DOWN = "down"


@dataclass(slots=True, eq=False)
class Ticket:
    """The permission to make one request; it is handed back with the answer."""

    who: str
    """The visitor, or for metadata the first id of the batch."""
    number: int
    """Tickets are numbered in the order in which their requests start."""
    of_several: bool = False
    """Whether the request carries more than one id: its success then counts, for each id, as another's."""


class _Passes:
    """The latest 2xx answers: enough to tell whether any visitor but a given one had one since a moment.

    The latest two of different visitors are enough: at least one of the two is another's.
    """

    def __init__(self) -> None:
        self._latest: tuple[int, Ticket | None] = (0, None)
        self._of_another: tuple[int, Ticket | None] = (0, None)
        """The latest 2xx of a visitor other than the one with the latest of all."""

    def note(self, moment: int, ticket: Ticket) -> None:
        """`moment`: any number above 0; they may come in any order."""
        latest_moment, latest = self._latest
        is_same = latest is None or latest.who == ticket.who
        if moment > latest_moment:
            if not is_same:
                self._of_another = self._latest
            self._latest = (moment, ticket)
        elif not is_same and moment > self._of_another[0]:
            self._of_another = (moment, ticket)

    def of_another(self, who: str) -> int:
        """The moment of the latest 2xx that was not this visitor's alone; 0 if there was none."""
        for moment, ticket in (self._latest, self._of_another):
            if ticket is not None and (ticket.of_several or ticket.who != who):
                return moment
        return 0


class _RecentAnswers:
    """How many answers arrived in the last ten seconds, to the second."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()
        """[second, answers]"""

    def note(self, now: float) -> None:
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0])
            while self._seconds[0][0] < now - THROTTLE_WINDOW_SECONDS:
                self._seconds.popleft()
        self._seconds[-1][1] += 1

    def count(self) -> int:
        return sum(answers for _, answers in self._seconds)


class Endpoint:
    """The state of one endpoint."""

    def __init__(self, max_in_flight: int, budget: Budget) -> None:
        self._max_in_flight = max_in_flight
        self.budget = budget
        self.in_flight = 0
        self.successes = 0
        """How many 2xx there have been."""
        self.tickets = 0
        """How many requests have started."""
        self._limit = float(max_in_flight)
        self._slow_start_until = float(max_in_flight)
        self._mode = _Mode.NORMAL
        self._cause = EndpointState.OK
        self._down_at_ticket = 0
        self._believed_after_ticket = 0
        """Failures of requests up to this number are ignored: they started in another state of the endpoint, or with
        another secret.
        """
        self._passes_by_answer = _Passes()
        self._passes_by_start = _Passes()
        self._failures = 0
        self._refusals = 0
        self._failing: set[str] = set()
        """Two of the visitors that failed since the last 2xx: more would say nothing more."""
        self._refused: set[str] = set()
        self.last_failed: str | None = None
        """The visitor whose request failed last, if none has passed since."""
        self.rejected_probes: set[str] = set()
        """Visitors whose probe Pendo rejected for its contents while the endpoint is down: other visitors' probes say
        more.
        """
        self._probe: Ticket | None = None
        self._probe_at = 0.0
        self._probe_delay = 0.0
        self._answers = _RecentAnswers()
        self._passed_at = -math.inf
        """When the latest 2xx came."""
        self._throttles: deque[tuple[float, str]] = deque()
        self._throttled = False
        self._held_at_ticket = 0
        self._held_until = 0.0
        self._hold_delay = 0.0

    # What may start

    def opens_at(self, now: float) -> float | None:
        """When a request may start: `now` if at once, None if that depends on an answer."""
        if self.probes:
            probes_at = None if self._probe else max(self._probe_at, self._held_until)
            return probes_at if probes_at is None or probes_at > now else self.budget.opens_at(now)
        return None if self.in_flight >= self.limit else self.budget.opens_at(now)

    @property
    def limit(self) -> int:
        """How many requests may be in flight."""
        return int(self._limit)

    @property
    def probes(self) -> bool:
        """Whether only one request at a time may be in flight, until one passes."""
        return self._mode is _Mode.DOWN or self._throttled

    def start(self, who: str, *, of_several: bool = False) -> Ticket:
        """Start a request; `opens_at` allowed one."""
        self.budget.spend()
        self.in_flight += 1
        self.tickets += 1
        ticket = Ticket(who, self.tickets, of_several)
        if self.probes:
            self._probe = ticket
        return ticket

    # What is known

    @property
    def state(self) -> EndpointState:
        """The state that operators see."""
        if self._mode is _Mode.DOWN:
            return self._cause
        if self._all_refused:
            return EndpointState.UNAUTHORIZED
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

    def passed_another(self, who: str) -> int:
        """The number of successes at another visitor's latest 2xx; 0 if there was none."""
        return self._passes_by_answer.of_another(who)

    def another_started_after(self, ticket_number: int, who: str) -> bool:
        """Whether another visitor's request passed that started after this many requests had started."""
        return self._passes_by_start.of_another(who) > ticket_number

    # Answers

    def succeeded(self, ticket: Ticket, now: float) -> None:
        """A 2xx."""
        self._finish(ticket, now)
        self._passed_at = now
        self.successes += 1
        self._passes_by_answer.note(self.successes, ticket)
        self._passes_by_start.note(ticket.number, ticket)
        if not self._proves_health(ticket):
            return
        if self._mode is _Mode.DOWN:
            self._limit, self._slow_start_until = 1.0, float(self._max_in_flight)
            self._believed_after_ticket = ticket.number
        else:
            self._grow()
        if self._failures or self.probes:
            self._recover(ticket)

    def failed(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:
        """A transient failure; `retry_after`: how many seconds Pendo asked to wait, if it did."""
        was_probe = self._finish(ticket, now)
        if self._mode is _Mode.DOWN:
            if was_probe:
                self._next_probe(now, retry_after)
        elif ticket.number > self._believed_after_ticket:
            self._note_failure(ticket)
            self._judge(now)

    def refused(self, ticket: Ticket, now: float) -> bool:
        """An answer that says that something is set up wrongly; returns whether that is true of the present
        set-up.
        """
        was_probe = self._finish(ticket, now)
        if ticket.number <= self._believed_after_ticket:
            return False
        if self._mode is _Mode.DOWN:
            if was_probe:
                self._cause = EndpointState.UNAUTHORIZED
                self._next_probe(now)
            return True
        self._note_failure(ticket)
        self._refusals += 1
        _add_up_to_two(self._refused, ticket.who)
        self._judge(now)
        return True

    def throttled(self, ticket: Ticket, retry_after: float | None, now: float) -> None:
        """A 429; `retry_after` counts for the endpoint only if nothing has passed for ten seconds."""
        was_probe = self._finish(ticket, now)
        if self._mode is _Mode.DOWN:
            if was_probe:
                self._next_probe(now, retry_after)
            return
        if self._throttled:
            if was_probe:
                self._hold(retry_after, now)
            return
        self._throttles.append((now, ticket.who))
        while self._throttles[0][0] < now - THROTTLE_WINDOW_SECONDS:
            self._throttles.popleft()
        if self._too_many_throttled():
            self._hold(retry_after, now)

    def rejected(self, ticket: Ticket, now: float) -> None:
        """A final answer to one delivery; it only shows that the endpoint answers.

        The next probe is another visitor's, and soon. Otherwise a visitor whose every event is rejected would be
        chosen again and again, as the youngest delivery that never failed, after growing pauses.
        """
        if self._finish(ticket, now) and self._mode is _Mode.DOWN:
            self.last_failed = ticket.who
            if len(self.rejected_probes) < MAX_REJECTED_PROBES:
                self.rejected_probes.add(ticket.who)
            self._probe_delay = 0.0
            self._next_probe(now)

    def secret_changed(self, now: float) -> None:
        """The credential has changed: try at once, and ignore answers to requests with the old one."""
        self._believed_after_ticket = self._down_at_ticket = self.tickets
        if self._mode is _Mode.NORMAL:
            self._forget_failures()
        self._probe = None
        self._probe_delay = 0.0
        self._probe_at = now

    # Inside

    def _finish(self, ticket: Ticket, now: float) -> bool:
        """Note the end of a request; returns whether it was the probe."""
        self.in_flight -= 1
        self._answers.note(now)
        was_probe = ticket is self._probe
        if was_probe:
            self._probe = None
        return was_probe

    def _proves_health(self, ticket: Ticket) -> bool:
        """Whether a 2xx shows that the endpoint works now: a refusal outweighs requests that started before it."""
        is_refusing = self._mode is _Mode.DOWN and self._cause is EndpointState.UNAUTHORIZED
        return not is_refusing or ticket.number > self._down_at_ticket

    def _note_failure(self, ticket: Ticket) -> None:
        self._failures += 1
        self.last_failed = ticket.who
        _add_up_to_two(self._failing, ticket.who)

    @property
    def _all_refused(self) -> bool:
        """Whether refusals outweigh the requests still in flight: with many requests, two in a row mean little."""
        return self._refusals >= 2 and self._refusals > min(self.in_flight, FAILURES_THAT_OPEN - 1)

    def _judge(self, now: float) -> None:
        """Take the endpoint down if what failed since the last 2xx is enough for it."""
        if self._all_refused and len(self._refused) > 1:
            self._go_down(EndpointState.UNAUTHORIZED, now)
        elif self._failures >= FAILURES_THAT_OPEN and len(self._failing) > 1:
            mostly_refused = 2 * self._refusals > self._failures
            self._go_down(EndpointState.UNAUTHORIZED if mostly_refused else EndpointState.UNREACHABLE, now)

    def _too_many_throttled(self) -> bool:
        visitors = len({who for _, who in self._throttles})
        share = THROTTLED_SHARE_THAT_HOLDS * self._answers.count()
        return visitors >= THROTTLED_VISITORS_THAT_HOLD and len(self._throttles) >= share

    def _grow(self) -> None:
        if self._limit < self._max_in_flight:
            step = 1.0 if self._limit < self._slow_start_until else 1.0 / self._limit
            self._limit = min(float(self._max_in_flight), self._limit + step)

    def _recover(self, ticket: Ticket) -> None:
        self._mode = _Mode.NORMAL
        self._forget_failures()
        if self._throttled and ticket.number > self._held_at_ticket:
            self._throttled = False
            self._hold_delay = 0.0
        if not self._throttled:
            self._probe = None

    def _forget_failures(self) -> None:
        self._failures = self._refusals = 0
        self._failing.clear()
        self._refused.clear()
        self.rejected_probes.clear()
        self.last_failed = None

    def _go_down(self, cause: EndpointState, now: float) -> None:
        self._mode = _Mode.DOWN
        self._cause = cause
        self._down_at_ticket = self.tickets
        self._probe = None
        self._probe_delay = 0.0
        self._next_probe(now)

    def _next_probe(self, now: float, retry_after: float | None = None) -> None:
        """Wait longer than before the previous probe."""
        self._probe_delay = next_probe_delay(self._probe_delay)
        self._probe_at = now + max(self._probe_delay, retry_after or 0.0)

    def _hold(self, retry_after: float | None, now: float) -> None:
        """Let nothing start for a while, then one request at a time; once one passes, half as many as before."""
        if not self._throttled:
            self._limit = max(1.0, self._limit / 2)
            self._slow_start_until = self._limit
        self._throttles.clear()
        self._throttled = True
        self._hold_delay = next_probe_delay(self._hold_delay)
        self._held_at_ticket = self.tickets
        others_pass = now - self._passed_at < THROTTLE_WINDOW_SECONDS  # then Retry-After is the visitor's own
        self._held_until = now + max(self._hold_delay, 0.0 if others_pass else retry_after or 0.0)


def _add_up_to_two(names: set[str], name: str) -> None:
    if len(names) < 2:
        names.add(name)
