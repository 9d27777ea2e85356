"""Judges a soak that is over: what was published, what Pendo received, and what the ledger says must agree.

In: a soak whose last life of the events topic is settled. Out: complaints, each a sentence; none: nothing is wrong.
"""

from __future__ import annotations

import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import orjson

from chaos.soak.events import PLAN, Group, Step, group_of, step_of
from chaos.soak.members import FROZEN_SHORT, STOPPED, Ending
from chaos.soak.soak import INTERVAL_SECONDS, MAX_CONNECTIONS, MEMBERS, Soak
from chaos.soak.topics import Entry
from chaos.soak.troubles import KAFKA_GRACE, REQUEST_TIMEOUT_SECONDS
from chaos.soak.watch import RSS_LIMIT_BYTES, Watch
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.demo.pendo_stand_in import Endpoint, Fate, Received, Rule
from flagpost_consumer.demo.pendo_stand_in import Kind as PendoKind
from flagpost_schemas import LedgerEntry
from running import FLAGPOST, environment

RECONCILE_SECONDS: Final = 300
EXAMPLES: Final = 5
UNACKNOWLEDGED_SECONDS: Final = 1.0
"""How old the oldest unacknowledged answer may get before sending stops (docs/guarantees.md#sent-twice)."""
LATE_SECONDS: Final = 3.0
"""How late the stand-in may note the arrival of a request: it shares this process."""
REPEATS_AN_ENDING: Final = 3 * MAX_CONNECTIONS
OUT_OF_TURN_A_FREEZE: Final = 1
"""A process frozen between its last check and the write to the socket may send once out of turn."""

TOPIC_ANEW: Final = "topic made anew"
"""The trouble after which two members may own a partition of one number: one of the old topic, one of the new."""

REFUSES_THE_PUBLISHER: Final = frozenset({"events not writable", TOPIC_ANEW})
"""Troubles in which Kafka refuses batch after batch, and accepts the next one as soon as the trouble is over."""

OUT_OF_ORDER_A_REFUSAL: Final = 10
"""How many events may be written before the last refused batch: those that the publisher passes to Kafka's client
before it learns of the refusal.
"""

A_LIFE: Final = 1_000_000_000
"""More offsets than a life of the events topic has."""

SETUP: Final = (301, 302, 401, 403, 404)
POISONOUS: Final = frozenset({Reason.REJECTED, Reason.ATTEMPTS_EXHAUSTED})
ALLOWED: Final = {
    Group.HOT: frozenset({Reason.VISITOR_BACKLOG}),
    Group.POISON: POISONOUS | {Reason.VISITOR_BACKLOG},
    Group.ODD: frozenset({Reason.UNDECODABLE, Reason.UNKNOWN_SCHEMA, Reason.INVALID}),
    Group.ODD_REGISTRY: frozenset({Reason.UNKNOWN_SCHEMA}),
}
"""The reasons for which a group's records may be dead-lettered, besides what Pendo itself answered."""


@dataclass(slots=True)
class Verdict:
    """The findings: complaints and figures."""

    complaints: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)

    def none_of(self, found: list[Any], what: str) -> None:
        """Complain if anything was found."""
        if found:
            self.complaints.append(f"{len(found)} {what}: {found[:EXAMPLES]}")

    def show(self) -> str:
        """The verdict as it is printed."""
        lines = [f"  {name}: {value}" for name, value in self.figures.items()]
        lines += [f"  COMPLAINT: {complaint}" for complaint in self.complaints]
        return "\n".join(["verdict:", *lines, "nothing amiss" if not self.complaints else "NOT as promised"])


def judge(soak: Soak, watch: Watch | None) -> Verdict:
    """Compare everything with everything else. `watch`: its measurements count; None: no measurements count."""
    verdict = judge_records(soak, soak.pendo.received.of(Endpoint.TRACK))
    _judge_publisher(soak, verdict)
    _judge_members(soak, watch, verdict)
    _judge_books(soak, verdict)
    return verdict


def judge_records(soak: Soak, requests: list[Received]) -> Verdict:
    """Compare what was published, the track requests that Pendo received, and what the ledger says."""
    verdict = Verdict()
    recorded = recorded_steps(requests)
    verdict.figures |= {
        "seed": soak.seed,
        "protocol": soak.protocol,
        "lives of the events topic": len(soak.lives),
        "records in the last of them": len(soak.published.entries),
        "track requests": len(requests),
        "recorded by Pendo": sum(map(len, recorded.values())),
        "timeline, s": _timeline(soak),
        "troubles": dict(Counter(episode.trouble.name for episode in soak.episodes)),
    }
    _judge_settlements(soak, recorded, requests, verdict)
    _judge_inventions(soak, recorded, verdict)
    _judge_repeats(soak, recorded, verdict)
    _judge_turns(soak, requests, verdict)
    _judge_plans(soak, verdict)
    _judge_rules(soak, verdict)
    return verdict


def _timeline(soak: Soak) -> str:
    episodes = [(each.began, each.ended or each.began, each.trouble.name) for each in soak.episodes]
    endings = [(each.began, each.ended, f"{each.member} {each.how}") for each in soak.members.endings]
    return "; ".join(
        f"{began - soak.began:.1f} to {ended - soak.began:.1f} {what}"
        for began, ended, what in sorted([*episodes, *endings])
    )


def recorded_steps(requests: list[Received]) -> dict[Step, list[Received]]:
    """The steps that Pendo has recorded, each with its requests."""
    found: dict[Step, list[Received]] = defaultdict(list)
    for request in requests:
        if request.fate is Fate.RECORDED:
            parsed: Any = request.parsed
            found[step_of(parsed)].append(request)
    return found


def _sender(request: Received) -> str:
    return request.path.partition("?by=")[2]


# Settlements


def _judge_settlements(
    soak: Soak, recorded: dict[Step, list[Received]], requests: list[Received], verdict: Verdict
) -> None:
    """Each record is settled in a way that its group allows; Pendo has each event that the ledger calls delivered."""
    answers: dict[Step, list[int]] = defaultdict(list)
    for request in requests:
        parsed: Any = request.parsed
        answers[step_of(parsed)].append(request.status)
    unsettled, unfair = [], []
    due: dict[Step, Entry] = {}
    given_up: set[Step] = set()
    outcomes: Counter[str] = Counter()
    topic_id = soak.published.topic_id
    for entry in soak.published.entries:
        if not soak.ledger.is_settled(topic_id, entry):
            unsettled.append(_told(soak, entry))
            continue
        ends = list(_ends(soak, entry))
        outcomes.update(
            f"{group_of(entry.content.visitor).prefix}: {end.outcome}/{end.reason}" for end in ends
        )
        unfair += [
            f"{_told(soak, entry)}: {end.kind} {end.outcome}/{end.reason} at {_settled_at(soak, entry, end)} s"
            for end in ends
            if not _is_fair(entry, end, answers)
        ]
        if entry.content.step is not None:
            step, track = (entry.content.visitor, entry.content.step), _outcome_of_track(ends)
            if track in (Outcome.DELIVERED, Outcome.DUPLICATE):
                due[step] = entry
            elif track == Outcome.DEAD_LETTERED:
                given_up.add(step)  # its dead letter covers its duplicates, too
    lost = [_told(soak, e) for step, e in due.items() if step not in recorded and step not in given_up]
    verdict.none_of(unsettled, "records are not settled")
    verdict.none_of(
        lost, "events are lost: the ledger calls them delivered, or duplicates, and Pendo has none"
    )
    verdict.none_of(unfair, "records were settled as they should not be")
    verdict.figures["settled"] = dict(sorted(outcomes.items()))


def _told(soak: Soak, entry: Entry) -> str:
    about = f"{entry.content.visitor} {entry.content.step}"
    return f"{entry.partition}/{entry.offset} ({about}, published at {entry.seen_at - soak.began:.1f} s)"


def _ends(soak: Soak, entry: Entry) -> Iterator[LedgerEntry]:
    topic_id = soak.published.topic_id
    for kind in soak.ledger.kinds[topic_id, entry.partition, entry.offset]:
        settled = soak.ledger.settled[topic_id, entry.partition, entry.offset, kind]
        yield max(settled, key=lambda each: _RANKS[each.outcome])


_RANKS: Final = {
    Outcome.DROPPED.value: 0,
    Outcome.DUPLICATE.value: 1,
    Outcome.DEAD_LETTERED.value: 2,
    Outcome.DELIVERED.value: 3,
}
"""Of several settlements of a delivery the one with the highest rank counts (docs/contract.md#accounting)."""


def _is_fair(entry: Entry, end: LedgerEntry, answers: dict[Step, list[int]]) -> bool:
    """Whether a record of this group may be settled this way."""
    group = group_of(entry.content.visitor)
    if end.outcome in (Outcome.DELIVERED, Outcome.DUPLICATE):
        return group not in (Group.ODD, Group.ODD_REGISTRY)
    if end.outcome != Outcome.DEAD_LETTERED:
        return False
    return end.reason in ALLOWED.get(group, ()) or _pendo_refused(entry, end, answers)


def _pendo_refused(entry: Entry, end: LedgerEntry, answers: dict[Step, list[int]]) -> bool:
    """Whether Pendo's answers to this event, drawn at random, justify its dead letter."""
    if entry.content.step is None or end.kind != Kind.TRACK:
        return False
    given = answers.get((entry.content.visitor, entry.content.step), [])
    if end.reason == Reason.REJECTED:
        return sum(status in SETUP for status in given) >= 2
    return end.reason == Reason.ATTEMPTS_EXHAUSTED and sum(status != 200 for status in given) >= 10


def _outcome_of_track(ends: list[LedgerEntry]) -> str | None:
    return next((end.outcome for end in ends if end.kind == Kind.TRACK), None)


def _settled_at(soak: Soak, entry: Entry, end: LedgerEntry) -> float:
    identity = (soak.published.topic_id, entry.partition, entry.offset, Kind(end.kind))
    return round(soak.ledger.settled_at[identity] - soak.began, 1)


def _judge_inventions(soak: Soak, recorded: dict[Step, list[Received]], verdict: Verdict) -> None:
    published = {(entry.content.visitor, entry.content.step) for life in soak.lives for entry in life.entries}
    verdict.none_of([step for step in recorded if step not in published], "events were never published")


# What was sent again


def _judge_repeats(soak: Soak, recorded: dict[Step, list[Received]], verdict: Verdict) -> None:
    """Each event that was sent again follows a lost answer, or an ending that lost the answer's settlement."""
    unseen = unseen_steps(soak)
    causes: Counter[Ending | str] = Counter()
    unexplained = []
    for step, sightings in recorded.items():
        for earlier, later in pairwise(sightings):
            cause = _cause(soak, earlier, was_unseen=step in unseen)
            if cause is None:
                unexplained.append(f"{step}: {_sighting(soak, earlier)}, {_sighting(soak, later)}")
            else:
                causes[cause] += 1
    verdict.none_of(unexplained, "events were sent again without a reason")
    limits = {cause: REPEATS_AN_ENDING * (1 if isinstance(cause, Ending) else MEMBERS) for cause in causes}
    many = [
        (cause, count)
        for cause, count in causes.items()
        if not isinstance(cause, str) and count > limits[cause]
    ]
    verdict.none_of(many, "endings cost more repeats than they may")
    by_kind: Counter[str] = Counter()
    for cause, count in causes.items():
        by_kind[cause.how if isinstance(cause, Ending) else str(cause)] += count
    verdict.figures["sent again, after"] = dict(by_kind)


def _sighting(soak: Soak, request: Received) -> str:
    return f"by {_sender(request)} at {request.at_seconds - soak.began:.1f} s"


def unseen_steps(soak: Soak) -> set[Step]:
    """Steps for which the ledger counts attempts whose answer was never seen."""
    found = set()
    for life in soak.lives:
        for entry in life.entries:
            settled = soak.ledger.settled.get((life.topic_id, entry.partition, entry.offset, Kind.TRACK), [])
            if entry.content.step is not None and any(end.unseen for end in settled):
                found.add((entry.content.visitor, entry.content.step))
    return found


def _cause(soak: Soak, earlier: Received, *, was_unseen: bool) -> Ending | str | None:
    """Why an event was sent again although Pendo had it; None: for no reason."""
    if earlier.status != 200:
        return "a lost answer"
    at = earlier.at_seconds
    before = REQUEST_TIMEOUT_SECONDS + UNACKNOWLEDGED_SECONDS
    was_frozen = False
    for ending in soak.members.endings:
        if ending.how == STOPPED:
            continue  # a clean stop loses nothing
        if ending.member == _sender(earlier) and ending.began - before <= at <= ending.ended + LATE_SECONDS:
            if ending.how != FROZEN_SHORT:
                return ending
            # The answers wait in the socket buffers and are read; but the ledger may accept nothing at the same time.
            was_frozen = True
    for episode in soak.episodes:
        ended = at if episode.ended is None else episode.ended
        if episode.trouble.loses_answers and episode.began - before <= at <= ended + KAFKA_GRACE:
            return f"{episode.trouble.name}"
    return "an answer that the ledger calls unseen" if was_unseen and not was_frozen else None


# Order and pace


def _judge_turns(soak: Soak, requests: list[Received], verdict: Verdict) -> None:
    """A visitor's events first arrive in the order of the topic, and its requests are one interval apart.

    Both hold within one topic: until a member notices that the topic was recreated, it sends events of the old one.
    """
    places = _places(soak)
    newest: dict[str, int] = defaultdict(lambda: -1)
    last: dict[str, tuple[Received, int]] = {}
    seen: set[Step] = set()
    disorder, haste = [], []
    for request in requests:
        parsed: Any = request.parsed
        visitor, number = step = step_of(parsed)
        place = places.get(step, -1)
        at = round(request.at_seconds - soak.began, 1)
        is_behind = place < newest[visitor] and not _is_of_another_topic(
            soak, request, place, newest[visitor]
        )
        if step not in seen and is_behind:
            disorder.append((request, f"{visitor}: step {number} after a later one, at {at} s"))
        if visitor in last:
            before, its_place = last[visitor]
            apart = request.at_seconds - before.at_seconds
            if apart < INTERVAL_SECONDS and not _is_of_another_topic(soak, request, place, its_place):
                haste.append((request, f"{visitor}: {apart:.3f} s after {_sender(before)}'s, at {at} s"))
        seen.add(step)
        newest[visitor] = max(newest[visitor], place)
        last[visitor] = request, place
    verdict.none_of(_beyond_freezes(soak, disorder), "events came out of order")
    verdict.none_of(_beyond_freezes(soak, haste), "requests came too soon")


def _is_of_another_topic(soak: Soak, request: Received, place: int, other: int) -> bool:
    """Whether one place is in the old topic and one in the new topic, and a member may not have noticed that yet."""
    return place // A_LIFE != other // A_LIFE and any(
        each.trouble.name == TOPIC_ANEW
        and each.began <= request.at_seconds <= (each.ended or request.at_seconds) + KAFKA_GRACE
        for each in soak.episodes
    )


def _places(soak: Soak) -> dict[Step, int]:
    """The place in its partition where each step was first published; a later life of the topic has higher places."""
    places: dict[Step, int] = {}
    for number, life in enumerate(soak.lives):
        for entry in life.entries:
            if entry.content.step is not None:
                step = entry.content.visitor, entry.content.step
                places.setdefault(step, number * A_LIFE + entry.offset)
    return places


def _beyond_freezes(soak: Soak, found: list[tuple[Received, str]]) -> list[str]:
    """The findings without those that a process may have sent when it continued after a freeze."""
    freezes = [ending for ending in soak.members.endings if ending.how.startswith("frozen")]
    left: Counter[Ending] = Counter(dict.fromkeys(freezes, OUT_OF_TURN_A_FREEZE))
    beyond = []
    for request, text in found:
        for freeze in freezes:
            is_near = freeze.ended - LATE_SECONDS <= request.at_seconds <= freeze.ended + LATE_SECONDS
            if freeze.member == _sender(request) and is_near and left[freeze]:
                left[freeze] -= 1
                break
        else:
            beyond.append(f"{text} by {_sender(request)}")
    return beyond


# Metadata, and Pendo's rules


def _judge_plans(soak: Soak, verdict: Verdict) -> None:
    """Pendo has the newest plan of each visitor."""
    newest: dict[str, int] = {}
    for entry in soak.published.entries:
        if entry.plan is not None:
            newest[entry.content.visitor] = max(entry.plan, newest.get(entry.content.visitor, 0))
    wrong = []
    for visitor, value in newest.items():
        kept = soak.pendo.metadata.values(PendoKind.VISITOR, visitor).get(PLAN)
        if kept != f"{value:06}":
            wrong.append(f"{visitor}: {kept}, and {value:06} is the newest")
    verdict.none_of(wrong, "values of metadata are not the newest")


def _judge_rules(soak: Soak, verdict: Verdict) -> None:
    """Pendo's other rules are kept. `_judge_turns` judges the pace; ids may be in flight twice if a member ended."""
    excused = (Rule.PACE, Rule.METADATA_ID_IN_FLIGHT)
    broken = Counter(v.rule for v in soak.pendo.received.violations if v.rule not in excused)
    verdict.none_of(list(broken.items()), "of Pendo's rules were broken")
    verdict.figures["ids of metadata in flight twice"] = sum(
        v.rule is Rule.METADATA_ID_IN_FLIGHT for v in soak.pendo.received.violations
    )


# The publisher, the members, and the books


def _judge_publisher(soak: Soak, verdict: Verdict) -> None:
    """What Flagpost's own Publisher accepted is in Kafka, although for a while it had no right to write."""
    stats = soak.traffic.service.stats()
    verdict.figures["publisher"] = stats
    if stats.accepted != stats.delivered or stats.refused:
        verdict.complaints.append(f"the publisher lost or refused events: {stats}")
    newest: dict[str, int] = defaultdict(int)
    disorder = []
    for life in soak.lives:
        for entry in life.entries:
            visitor, step = entry.content.visitor, entry.content.step
            if group_of(visitor) is not Group.SERVICE or step is None:
                continue
            if step < newest[visitor]:
                disorder.append(f"{_told(soak, entry)} after {newest[visitor]}")
            newest[visitor] = max(newest[visitor], step)
    verdict.figures["events that the publisher wrote out of order"] = len(disorder)
    refusing = sum(each.trouble.name in REFUSES_THE_PUBLISHER for each in soak.episodes)
    if len(disorder) > refusing * OUT_OF_ORDER_A_REFUSAL:
        verdict.none_of(disorder, "events were written by the publisher out of order")


def _judge_members(soak: Soak, watch: Watch | None, verdict: Verdict) -> None:
    members = soak.members
    verdict.none_of(members.unasked, "times a member ended, or stood still, unasked")
    peak = members.peak_rss_bytes
    verdict.figures["most memory of a member, MB"] = round(peak / 2**20)
    verdict.figures["endings"] = dict(Counter(ending.how for ending in members.endings))
    if peak > RSS_LIMIT_BYTES:
        verdict.complaints.append(
            f"a member had {peak / 2**20:.0f} MB; {RSS_LIMIT_BYTES / 2**20:.0f} are allowed"
        )
    if watch is not None:
        verdict.complaints += watch.complaints
        by_text: Counter[str] = Counter(watch.late.values())
        verdict.none_of([f"{count}: {text}" for text, count in by_text.items()], "times events were late")
        measured = [minute for minute in watch.minutes if minute.measured]
        verdict.figures["minutes, and those with a measurement"] = (len(watch.minutes), len(measured))
        slowest = max((minute.slowest_seconds for minute in measured), default=0.0)
        verdict.figures["longest wait without an excuse, s"] = round(slowest, 1)


def _judge_books(soak: Soak, verdict: Verdict) -> None:
    """`flagpost reconcile --json` agrees with the oracle."""
    done = subprocess.run(
        [str(FLAGPOST), "reconcile", "--json"],
        env=environment(soak.settings),
        capture_output=True,
        text=True,
        timeout=RECONCILE_SECONDS,
        check=False,
    )
    if not done.stdout:
        verdict.complaints.append(f"reconcile said nothing, exit {done.returncode}: {done.stderr[-2000:]}")
        return
    document = orjson.loads(done.stdout)
    wanted: dict[str, Callable[[], int]] = {
        "unexplained": lambda: document["unexplained"],
        "lost_offsets": lambda: document["lost_offsets"],
        "pending": lambda: document["totals"]["pending"],
        "exit": lambda: done.returncode,
    }
    verdict.figures["reconcile"] = document["totals"]
    wrong = {name: found for name, read in wanted.items() if (found := read())}
    if wrong:
        verdict.complaints.append(f"reconcile: {wrong}, where each should be 0")
    tracks = sum(
        (Kind.TRACK in entry.content.kinds) or not entry.content.kinds for entry in soak.published.entries
    )
    if document["totals"]["published"] != tracks:
        verdict.complaints.append(
            f"reconcile counts {document['totals']['published']} published, not {tracks}"
        )
