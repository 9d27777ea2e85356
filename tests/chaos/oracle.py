"""Judges a storm: what was published, what Pendo received, and what the ledger says must agree.

In: a storm that is over. Out: figures, or an AssertionError that says what does not agree.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from chaos.storm import (
    INTERVAL_SECONDS,
    MAX_CONNECTIONS,
    REQUEST_TIMEOUT_SECONDS,
    SESSION_SECONDS,
    Kill,
    Stall,
    Storm,
)
from flagpost_consumer.demo.pendo_stand_in import Fate, Received
from traffic import tracks

UNACKNOWLEDGED_SECONDS = 1.0
"""How old the oldest unacknowledged answer may get before sending stops (docs/guarantees.md#sent-twice)."""
LATE_SECONDS = 0.5
"""How late the stand-in may note an arrival: it shares this process."""
REPEATS_A_KILL = 3 * MAX_CONNECTIONS


@dataclass(frozen=True, slots=True)
class Story:
    """The figures of a storm."""

    published: int
    unique: int
    requests: int
    repeats: int
    kills: int


def judge(storm: Storm, *, repeats_allowed: bool = True) -> Story:
    """Compare what was published, what Pendo received and what the ledger says; returns the figures."""
    requests = tracks(storm.pendo.received)
    recorded = _recorded(requests)
    lost, invented = storm.traffic.unique - set(recorded), set(recorded) - storm.traffic.unique
    assert not lost, f"{len(lost)} of {len(storm.traffic.unique)} lost: {sorted(lost)[:5]}"
    assert not invented, f"{len(invented)} never published: {sorted(invented)[:5]}"
    repeats = _check_repeats(storm, recorded, allowed=repeats_allowed)
    _check_order(requests)
    _check_spacing(requests)
    _check_ledger(storm, delivered=len(recorded), sent_again=repeats)
    story = Story(storm.traffic.acknowledged, len(recorded), len(requests), repeats, len(storm.kills))
    print(story)  # noqa: T201 - the figures are the point of the long form
    return story


def _step(request: Received) -> tuple[str, str]:
    parsed: Any = request.parsed
    return parsed["visitorId"], parsed["properties"]["flag_key"]


def _sender(request: Received) -> str:
    return request.path.partition("?by=")[2]


def _recorded(requests: list[Received]) -> dict[tuple[str, str], list[Received]]:
    found: dict[tuple[str, str], list[Received]] = defaultdict(list)
    for request in requests:
        if request.fate is Fate.RECORDED:
            found[_step(request)].append(request)
    return found


def _check_repeats(storm: Storm, recorded: dict[tuple[str, str], list[Received]], *, allowed: bool) -> int:
    """An event may be sent again only after a lost answer, or if it was in flight or unacknowledged at a kill.

    A consumer that loses its session without being frozen has heard nothing of Kafka for as long as that lasts: on a
    busy machine that may happen to any. Returns how often Pendo recorded an event again.
    """
    lost = storm.lost_sessions()
    kills = [*storm.kills, *lost] if allowed else lost
    stalls = [*storm.stalls, *(Stall(each.at_seconds - SESSION_SECONDS, each.at_seconds) for each in lost)]
    by_kill: dict[Kill, int] = defaultdict(int)
    for sightings in recorded.values():
        for earlier, later in pairwise(sightings):
            if earlier.status != 200:
                continue  # its answer was lost: the consumer cannot know that Pendo recorded it
            kill = _kill_of(kills, stalls, earlier)
            assert kill is not None, (
                f"{_sender(later)} sent again at {later.at_seconds} what {_sender(earlier)} had sent at "
                f"{earlier.at_seconds}, without a reason; killed or frozen: {storm.kills}; {storm.rebalances()}"
            )
            by_kill[kill] += 1
    assert all(count <= REPEATS_A_KILL for count in by_kill.values()), by_kill
    return sum(len(sightings) - 1 for sightings in recorded.values())


def _kill_of(kills: list[Kill], stalls: list[Stall], request: Received) -> Kill | None:
    """The kill that explains why the settlement of a request may be unknown; None: there is none."""
    window = REQUEST_TIMEOUT_SECONDS + UNACKNOWLEDGED_SECONDS
    for kill in kills:
        stalled = _stalled_seconds(stalls, request.at_seconds, kill.at_seconds)
        late = LATE_SECONDS + (UNACKNOWLEDGED_SECONDS if kill.goes_on else 0.0)
        is_near = -window - stalled <= request.at_seconds - kill.at_seconds <= late
        if kill.sender == _sender(request) and is_near:
            return kill
    return None


def _stalled_seconds(stalls: list[Stall], since: float, until: float) -> float:
    """How long the ledger accepted nothing in this time: earlier answers were unacknowledged that much longer."""
    return sum(stall.ended - stall.began for stall in stalls if stall.began <= until and stall.ended >= since)


def _check_order(requests: list[Received]) -> None:
    """The first requests of a visitor's events come in the order of their offsets, which is that of their steps."""
    newest: dict[str, str] = defaultdict(str)
    seen: set[tuple[str, str]] = set()
    for request in requests:
        visitor, step = _step(request)
        if (visitor, step) not in seen:
            assert step > newest[visitor], f"{visitor}: {step} came after {newest[visitor]}"
            newest[visitor] = step
            seen.add((visitor, step))


def _check_spacing(requests: list[Received]) -> None:
    last: dict[str | None, float] = {}
    for request in requests:
        before = last.get(request.visitor_id)
        assert before is None or request.at_seconds - before >= INTERVAL_SECONDS
        last[request.visitor_id] = request.at_seconds


def _check_ledger(storm: Storm, *, delivered: int, sent_again: int) -> None:
    code, document = storm.reconcile()
    totals = document["totals"]
    assert document["unexplained"] == 0
    assert document["lost_offsets"] == 0
    assert code == 0
    assert totals["published"] == storm.traffic.acknowledged
    assert totals["delivered"] == delivered
    assert totals["duplicate"] == storm.traffic.acknowledged - delivered
    assert totals["dropped"] == totals["dead_lettered"] == totals["pending"] == 0
    if not storm.has_replaced_a_producer():  # what its successor wrote again may be in the ledger twice
        assert totals["sent_again"] <= sent_again, "what the ledger saw twice, Pendo saw twice"
