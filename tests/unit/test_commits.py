"""When positions are committed, and what a commit proves."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from engine_world import START_MS, decision, record
from flagpost_consumer.core.books.deliveries import Position
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.service.commits import Commits

SESSION_SECONDS = 45.0


class Member:
    """An engine with one partition, and what was committed for it."""

    def __init__(self) -> None:
        self.engine = Engine(Policy(), Random(1).random)
        self.sent: list[int] = []
        self.commits = Commits(self.engine, SESSION_SECONDS, self._commit)

    def _commit(self, positions: Mapping[int, Position]) -> None:
        self.sent.append(positions[0].offset)

    def restore(self, position: int) -> None:
        (partition,) = self.engine.assign([0], 1, at(0.0))
        self.engine.restore(partition, Restoration(position, Policy().dedupe))

    def may_send(self, seconds: float) -> bool:
        """Whether a request starts at a moment; each call receives the event of another visitor."""
        event = decision(f"visitor-{seconds}", occurred_at=START_MS)
        self.engine.receive([record(event, 1000 + int(seconds))], at(seconds))
        return bool(self.engine.poll(at(seconds)).attempts)


def at(seconds: float) -> Instant:
    return Instant(seconds, START_MS)


def test_nothing_is_committed_before_a_position_is_known() -> None:
    member = Member()
    member.engine.assign([0], 1, at(0.0))
    member.commits.if_due(0.0)
    assert member.sent == []


def test_an_unchanged_position_is_committed_every_third_of_a_session() -> None:
    member = Member()
    member.restore(7)
    for now in range(46):
        member.commits.if_due(float(now))
        member.commits.ended(float(now), float(now))
    assert member.sent == [7] * 4
    assert member.commits.proof_seconds == 15.0


def test_there_is_one_commit_at_a_time_and_none_is_forgotten() -> None:
    member = Member()
    member.restore(7)
    for _ in range(3):
        member.commits.now(0.0)
    assert member.sent == [7]
    member.commits.ended(0.0, 1.0)
    assert member.sent == [7, 7], "what came meanwhile is one more commit"
    member.commits.ended(1.0, 2.0)
    assert member.sent == [7, 7]


def test_a_failed_commit_is_retried_when_it_is_due_and_proves_nothing() -> None:
    member = Member()
    member.restore(7)
    member.commits.now(1.0)
    member.commits.ended(None, 2.0)
    assert member.sent == [7]
    assert not member.may_send(3.0)
    member.commits.if_due(3.0)
    assert len(member.sent) == 2


def test_a_commit_proves_membership_for_a_session_from_its_beginning() -> None:
    member = Member()
    member.restore(7)
    assert not member.may_send(1.5), "nobody has proved anything"
    member.commits.now(2.0)
    member.commits.ended(2.0, 9.0)
    timeout = Policy().limits.request_timeout_seconds
    assert member.may_send(2.0 + SESSION_SECONDS - timeout - 0.1)
    assert not member.may_send(2.0 + SESSION_SECONDS - timeout)
