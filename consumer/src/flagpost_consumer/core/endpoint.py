"""Whether another request may start at one of Pendo's endpoints, and what its answers say of it as a whole.

In: the start of each request and what its answer means. Out: when the next request may start, whether the endpoint
is down, and whether others' requests passed since a moment.

Two modes. NORMAL: requests up to a limit that adapts. DOWN: one probe at a time, from 1 s doubling to 30 s. What is
random (a few refusals, a few 429s) never takes the endpoint down, however many requests there are: it takes failures
in a row without a 2xx between them, of at least two visitors. A single visitor that fails never takes it down: its
own backoff spaces its retries, and only another visitor's delivery could tell more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, StrEnum

from flagpost_consumer.core.backoff import next_probe_delay
from flagpost_consumer.core.budget import Budget

FAILURES_THAT_OPEN = 10
"""Failures in a row, without a 2xx, after which the endpoint counts as down."""
THROTTLED_VISITORS_THAT_HOLD = 3
THROTTLED_SHARE_THAT_HOLDS = 0.05
"""429s hold the endpoint only if they are at least this share of the answers in the same time."""
THROTTLE_WINDOW_SECONDS = 10.0


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
    """Leave to make one request; it is handed back with the answer."""

    who: str
    """The visitor, or for metadata the first id of the batch."""
    number: int
    """Tickets are numbered in the order in which their requests start."""
    of_several: bool = False
    """Whether the request carries more than one id: its success is another's for each of them."""


class _Passes:
    """The latest 2xx, as far as it takes to tell whether anybody but one visitor had one since a moment.

    The latest two of different visitors are enough: at least one of the two is another's.
    """

    def __init__(self) -> None:
        self._latest: tuple[int, Ticket | None] = (0, None)
        self._of_another: tuple[int, Ticket | None] = (0, None)
        """The latest of those that were not the visitor's who had the latest of all."""

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
        """The moment of the latest pass that was not this visitor's alone; 0 if there was none."""
        for moment, ticket in (self._latest, self._of_another):
            if ticket is not None and (ticket.of_several or ticket.who != who):
                return moment
        return 0


class _RecentAnswers:
    """How many answers there were in the last ten seconds, to a second."""

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
        """Failures of requests up to this number say nothing of now: the endpoint, or the secret, was another."""
        self._passes_by_answer = _Passes()
        self._passes_by_start = _Passes()
        self._failures = 0
        self._refusals = 0
        self._failing: set[str] = set()
        """Two of the visitors that failed since the last 2xx: more tell nothing more."""
        self._refused: set[str] = set()
        self.last_failed: str | None = None
        """Whose request failed last, while none has passed since."""
        self._probe: Ticket | None = None
        self._probe_at = 0.0
        self._probe_delay = 0.0
        self._answers = _RecentAnswers()
        self._throttles: deque[tuple[float, str]] = deque()
        self._throttled = False
        self._held_at_ticket = 0
        self._held_until = 0.0
        self._hold_delay = 0.0

    # What may start

    def opens_at(self, now: float) -> float | None:
        """When a request may start: `now` if at once, None if only an answer can tell."""
        if self.probes:
            probes_at = None if self._probe else max(now, self._probe_at, self._held_until)
            return probes_at if probes_at is None or probes_at > now else self.budget.opens_at(now)
        return None if self.in_flight >= self.limit else self.budget.opens_at(now)

    @property
    def limit(self) -> int:
        """How many requests may be in flight."""
        return int(self._limit)

    @property
    def probes(self) -> bool:
        """Whether one request at a time must do, until one passes."""
        return self._mode is _Mode.DOWN or self._throttled

    def start(self, who: str, *, of_several: bool = False) -> Ticket:
        """Start a request; `opens_at` said that one may."""
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
        """How many 2xx there had been when the latest one of another visitor came; 0 if none did."""
        return self._passes_by_answer.of_another(who)

    def another_started_after(self, ticket_number: int, who: str) -> bool:
        """Whether another visitor's request passed that started after so many had been started."""
        return self._passes_by_start.of_another(who) > ticket_number

    # Answers

    def succeeded(self, ticket: Ticket, now: float) -> None:
        """A 2xx."""
        self._finish(ticket, now)
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
                self._next_probe(now, retry_after or 0.0)
        elif ticket.number > self._believed_after_ticket:
            self._note_failure(ticket)
            self._judge(now)

    def refused(self, ticket: Ticket, now: float) -> bool:
        """An answer that says that something is set up wrongly. Returns whether it says so of the set-up of now."""
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
        """A 429."""
        was_probe = self._finish(ticket, now)
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
        if self._too_many_throttled():
            self._hold(retry_after or 0.0, now)

    def rejected(self, ticket: Ticket, now: float) -> None:
        """A final answer to one delivery; it says nothing of the endpoint."""
        if self._finish(ticket, now) and self._mode is _Mode.DOWN:
            self._next_probe(now)

    def secret_changed(self, now: float) -> None:
        """The credential is a new one: try at once, and believe no answer to the old one."""
        self._believed_after_ticket = self._down_at_ticket = self.tickets
        if self._mode is _Mode.NORMAL:
            self._forget_failures()
        self._probe = None
        self._probe_delay = 0.0
        self._probe_at = now

    # Inside

    def _finish(self, ticket: Ticket, now: float) -> bool:
        """Note the end of a request; whether it was the probe."""
        self.in_flight -= 1
        self._answers.note(now)
        was_probe = ticket is self._probe
        if was_probe:
            self._probe = None
        return was_probe

    def _proves_health(self, ticket: Ticket) -> bool:
        """Whether a 2xx says that the endpoint works now: a refusal outweighs what started before it."""
        is_refusing = self._mode is _Mode.DOWN and self._cause is EndpointState.UNAUTHORIZED
        return not is_refusing or ticket.number > self._down_at_ticket

    def _note_failure(self, ticket: Ticket) -> None:
        self._failures += 1
        self.last_failed = ticket.who
        _add_up_to_two(self._failing, ticket.who)

    @property
    def _all_refused(self) -> bool:
        """Whether refusals outweigh what is still in flight: with many requests, two in a row mean little."""
        return self._refusals >= 2 and self._refusals > min(self.in_flight, FAILURES_THAT_OPEN - 1)

    def _judge(self, now: float) -> None:
        """Whether what failed since the last 2xx takes the endpoint down."""
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
        self._cause = EndpointState.OK
        self._forget_failures()
        self._probe_delay = 0.0
        if self._throttled and ticket.number > self._held_at_ticket:
            self._throttled = False
            self._hold_delay = 0.0
        if not self._throttled:
            self._probe = None

    def _forget_failures(self) -> None:
        self._failures = self._refusals = 0
        self._failing.clear()
        self._refused.clear()
        self.last_failed = None

    def _go_down(self, cause: EndpointState, now: float) -> None:
        self._mode = _Mode.DOWN
        self._cause = cause
        self._down_at_ticket = self.tickets
        self._probe = None
        self._probe_delay = 0.0
        self._next_probe(now)

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
        self._held_at_ticket = self.tickets
        self._held_until = now + max(retry_after, self._hold_delay)


def _add_up_to_two(names: set[str], name: str) -> None:
    if len(names) < 2:
        names.add(name)
