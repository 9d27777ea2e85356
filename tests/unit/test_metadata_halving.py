"""Batches that fail: a bad record is found in few requests and minutes, and an outage hardly splits batches."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from engine_world import OK, START_MS, TIMED_OUT, World
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DeliverySettings, EndpointLimits, MetadataSettings, Policy
from flagpost_schemas import MetadataValue, VisitorMetadata

BAD = "bad"
METADATA_TIMEOUT_SECONDS = 60.0
Script = Callable[[World, set[str]], Answer]


def value(visitor: str, number: int = 0, **values: MetadataValue) -> VisitorMetadata:
    return VisitorMetadata(
        event_id=f"{visitor}-{number}",
        occurred_at=START_MS + number,
        visitor_id=visitor,
        values=values or {"plan": "pro"},
    )


class Pendo:
    """Answers each request by its ids; a time-out takes as long as the setting says."""

    def __init__(self, script: Script, *, seconds: float = 0.05) -> None:
        self.script = script
        self.seconds = seconds
        self.sizes: list[int] = []

    def __call__(self, world: World, attempt: Attempt) -> tuple[Answer, float, float]:
        assert isinstance(attempt, MetadataAttempt)
        self.sizes.append(len(attempt.batch.ids))
        answer = self.script(world, set(attempt.batch.ids))
        return answer, 0.0, self.seconds


def one_bad(answer: Answer) -> Pendo:
    return Pendo(lambda _, ids: answer if BAD in ids else OK)


def world_with(
    pendo: Pendo,
    *,
    max_attempts: int = 10,
    request_timeout_seconds: float = 10.0,
    batch_size: int = 1000,
    seed: int = 1,
) -> World:
    policy = Policy(
        delivery=DeliverySettings(visitor_interval_seconds=0.0, max_attempts=max_attempts),
        metadata=MetadataSettings(linger_seconds=0.5, batch_size=batch_size),
        limits=EndpointLimits(request_timeout_seconds=request_timeout_seconds),
    )
    return World(policy, Random(seed), answering=pendo)


def publish_batch(world: World, size: int) -> None:
    for number in range(size - 1):
        world.publish(value(f"v{number}"))
        if number == min(size // 2, size - 2):
            world.publish(value(BAD))


def publish_others(world: World, minutes: int) -> None:
    """Publish a value of another healthy visitor every five seconds."""
    for number in range(12 * minutes):
        world.publish_at(5.0 * number, value(f"o{number}"))


def endings(world: World) -> dict[str, Reason]:
    """How each visitor's delivery ended."""
    return {
        (settlements[0].delivery.record.key or b"").decode(): settlements[0].ending.reason
        for settlements in world.settled.values()
    }


def settled_seconds(world: World, visitor: str) -> float:
    """When a visitor's first delivery was settled, in virtual seconds; raises if it was not."""
    return next(
        (settlement.settled_at_ms - START_MS) / 1000
        for settlements in world.settled.values()
        for settlement in settlements
        if settlement.delivery.record.key == visitor.encode()
    )


def others_settled_at(world: World) -> float:
    """When the last delivery of the healthy visitors was settled, in virtual seconds."""
    return max(
        (settlement.settled_at_ms - START_MS) / 1000
        for settlements in world.settled.values()
        for settlement in settlements
        if settlement.delivery.record.key != BAD.encode()
    )


def check_only_the_bad_one_died(world: World, reason: Reason, size: int) -> None:
    found = endings(world)
    assert found.pop(BAD) is reason
    assert set(found.values()) == {Reason.OK}
    assert len(found) >= size - 1


@pytest.mark.parametrize("answer", [Answer(500), Answer(408)])
def test_a_record_that_pendo_fails_on_costs_only_itself(answer: Answer) -> None:
    """Before the fix, the whole batch was dead-lettered as attempts_exhausted."""
    world = world_with(one_bad(answer))
    world.join()
    publish_batch(world, 101)
    publish_others(world, 20)
    world.run(until=3600.0)
    check_only_the_bad_one_died(world, Reason.ATTEMPTS_EXHAUSTED, 101)
    assert others_settled_at(world) < 1250.0
    (settlement,) = world.settled[0, 51, Kind.VISITOR_METADATA]
    assert settlement.delivery.counted_attempts == 10


SIZES = [(250, 8), pytest.param(1000, 10, marks=pytest.mark.simulated_hours)]
"""The size of a batch, and how often it is halved until one record is left."""


@pytest.mark.parametrize("answer", [Answer(500), Answer(403)])
@pytest.mark.parametrize(("size", "halvings"), SIZES)
def test_a_bad_record_among_a_thousand_is_found_in_few_requests_when_nobody_else_is_there(
    answer: Answer, size: int, halvings: int
) -> None:
    """The batch is sent twice, and then two parts of it for each halving. Before the fix, it was sent whole for ever.

    The bad record itself waits: none of its attempts counts, since no other visitor's request passes.
    """
    pendo = one_bad(answer)
    world = world_with(pendo)
    world.join()
    publish_batch(world, size)
    world.run(until=1200.0)
    found = endings(world)
    assert len(found) == size - 1
    assert set(found.values()) == {Reason.OK}
    assert len([size for size in pendo.sizes if size > 1]) <= 2 + 2 * halvings
    assert len(pendo.sizes) <= 2 + 2 * halvings + 1200 / 20


@pytest.mark.parametrize(("size", "halvings"), SIZES)
def test_a_record_on_which_pendo_hangs_holds_the_others_for_minutes_not_for_hours(
    size: int, halvings: int
) -> None:
    """Each request with it takes 60 s, and both halves go at once. Before the fix, the batch went whole for ever."""
    world = world_with(one_bad(TIMED_OUT), request_timeout_seconds=METADATA_TIMEOUT_SECONDS)
    world.join()
    publish_batch(world, size)
    world.run(until=3600.0)
    assert len(endings(world)) == size - 1
    assert others_settled_at(world) < 2.5 * halvings * METADATA_TIMEOUT_SECONDS


@pytest.mark.parametrize("status", [403, 404, 302])
def test_only_the_record_that_pendo_answers_with_a_setup_status_is_refused(status: int) -> None:
    pendo = one_bad(Answer(status))
    world = world_with(pendo)
    world.join()
    publish_batch(world, 101)
    publish_others(world, 20)
    world.run(until=3600.0)
    check_only_the_bad_one_died(world, Reason.REJECTED, 101)


def test_several_bad_records_cost_only_themselves() -> None:
    bad = {f"v{number}" for number in range(7, 200, 39)}
    world = world_with(Pendo(lambda _, ids: Answer(500) if ids & bad else OK))
    world.join()
    for number in range(200):
        world.publish(value(f"v{number}"))
    for minute in range(90):
        world.publish_at(60.0 * minute, value(f"o{minute}"))
    world.run(until=3 * 1800.0)
    found = endings(world)
    assert {visitor for visitor, reason in found.items() if reason is Reason.ATTEMPTS_EXHAUSTED} == bad
    assert list(found.values()).count(Reason.OK) == 200 - len(bad) + 90


@pytest.mark.parametrize(
    ("answer", "seconds"), [(Answer(500), 60.0), (Answer(403), 60.0), (TIMED_OUT, 240.0)]
)
def test_many_bad_records_and_nobody_else_hold_the_others_for_a_minute_or_twenty_time_outs(
    answer: Answer, seconds: float
) -> None:
    """Before the fix, if both halves had a bad record, each step waited for twice as many failures, for minutes."""
    bad = {f"v{number}" for number in range(0, 28, 4)}
    world = world_with(Pendo(lambda _, ids: answer if ids & bad else OK))
    world.join()
    for number in range(28):
        world.publish(value(f"v{number}"))
    world.run(until=seconds)
    assert endings(world).keys() - bad == {f"v{number}" for number in range(28)} - bad


@pytest.mark.simulated_hours
@pytest.mark.parametrize("answer", [Answer(503), Answer(403), Answer(429)])
def test_an_outage_of_a_day_splits_batches_only_a_little(answer: Answer) -> None:
    """Afterwards, the ten batches of a hundred visitors are sent in at most 200 requests, not in 1,000."""
    over = 24 * 3600.0
    pendo = Pendo(lambda world, _: answer if world.now < over else OK)
    world = world_with(pendo, batch_size=100)
    world.join()
    for number in range(1000):
        world.publish(value(f"v{number}"))
    world.run(until=over)
    during = len(pendo.sizes)
    world.run(until=over + 3600.0)
    assert set(endings(world).values()) == {Reason.OK}
    assert during < 24 * 3600 / 30 + 150
    assert len(pendo.sizes) - during <= 200


def test_failures_at_random_cost_few_more_requests() -> None:
    """One request in five fails: a batch is halved now and then, and never split into single records."""
    random = Random(3)
    pendo = Pendo(lambda *_: Answer(503) if random.random() < 0.2 else OK)
    world = world_with(pendo, batch_size=20)
    world.join()
    for number in range(600):
        world.publish(value(f"v{number}"))
    world.run()
    assert set(endings(world).values()) == {Reason.OK}
    assert len(pendo.sizes) < 3 * 30


# Request by request


def sizes_of_requests(script: Script, size: int, seconds: float = 300.0) -> list[int]:
    """Publish one batch and nothing else; returns the number of ids in each request."""
    pendo = Pendo(script)
    world = world_with(pendo)
    world.join()
    publish_batch(world, size)
    world.run(until=seconds)
    return pendo.sizes


@pytest.mark.parametrize("answer", [Answer(500), Answer(403), TIMED_OUT])
@pytest.mark.parametrize(("size", "sizes"), [(4, [4, 4, 1, 3, 2, 1]), (8, [8, 8, 1, 7, 4, 3, 2, 1])])
def test_a_batch_with_a_bad_record_is_tried_twice_then_without_one_id_then_in_halves(
    answer: Answer, size: int, sizes: list[int]
) -> None:
    """The half that failed is halved at once, since the other half passed. Then the bad record waits alone."""
    found = sizes_of_requests(lambda _, ids: answer if BAD in ids else OK, size)
    assert found[: len(sizes)] == sizes
    assert set(found[len(sizes) :]) == {1}


@pytest.mark.parametrize(
    ("fails", "size", "sizes"),
    [
        (2, 2, [2, 2, 1, 1]),
        (1, 4, [4, 4]),
        (2, 4, [4, 4, 1, 3]),
        (3, 4, [4, 4, 1, 3, 1]),
    ],
)
@pytest.mark.parametrize("answer", [Answer(500), Answer(403)])
def test_after_two_failures_one_id_is_sent_ahead(
    answer: Answer, fails: int, size: int, sizes: list[int]
) -> None:
    answers = [answer] * fails
    assert sizes_of_requests(lambda *_: answers.pop() if answers else OK, size) == sizes


def test_halves_that_both_fail_are_sent_again_before_they_are_halved() -> None:
    """Neither of them shows that Pendo works: it may be an outage."""
    bad = {"v1", "v6"}
    pendo = Pendo(lambda _, ids: Answer(500) if ids & bad else OK)
    world = world_with(pendo)
    world.join()
    for number in range(8):
        world.publish(value(f"v{number}"))
    world.run(until=300.0)
    assert pendo.sizes[:9] == [8, 8, 1, 7, 4, 3, 4, 3, 1]
    assert endings(world) == {f"v{number}": Reason.OK for number in (0, 2, 3, 4, 5, 7)}


def test_a_request_that_passed_before_the_batch_was_made_does_not_count_against_it() -> None:
    answers = [OK, Answer(500), Answer(500)]
    pendo = Pendo(lambda *_: answers.pop(0) if answers else OK)
    world = world_with(pendo)
    world.join()
    world.publish(value("early"))
    for number in range(4):
        world.publish_at(10.0, value(f"v{number}"))
    world.run(until=300.0)
    assert pendo.sizes == [1, 4, 4, 1, 3]


def test_a_request_that_passes_before_the_retry_does_not_halve_the_batch() -> None:
    """Everything may have failed at that moment: the batch is halved only if it fails again."""
    answers = [Answer(500), OK]
    pendo = Pendo(lambda *_: answers.pop(0) if answers else OK, seconds=1.0)
    world = world_with(pendo)
    world.join()
    for number in range(4):
        world.publish(value(f"v{number}"))
    world.publish_at(1.0, value("other"))
    world.run(until=300.0)
    assert pendo.sizes == [4, 1, 4]


def test_a_batch_that_gets_a_429_is_not_split() -> None:
    sizes = sizes_of_requests(lambda world, _: Answer(429) if world.now < 60.0 else OK, 4)
    assert len(sizes) > 3
    assert set(sizes) == {4}


def test_a_batch_that_is_refused_for_good_is_halved_at_once() -> None:
    sizes = sizes_of_requests(lambda _, ids: Answer(400) if BAD in ids else OK, 8)
    assert sizes == [8, 4, 4, 2, 2, 1, 1]


# Successes of other visitors


def test_a_visitors_own_success_does_not_make_an_attempt_count() -> None:
    """Only another visitor's 2xx does. Before the fix, the failure counted because of the visitor's own success."""
    answers = [OK, Answer(500), Answer(500)]
    pendo = Pendo(lambda *_: answers.pop(0) if answers else OK, seconds=5.0)
    world = world_with(pendo, max_attempts=1)
    world.join()
    world.publish(value("v", 0, plan="a"))
    world.publish_at(3.0, value("v", 1, plan="b"))
    world.run()
    assert list(world.reasons(Kind.VISITOR_METADATA).values()) == [Reason.OK, Reason.OK]


def test_an_attempt_counts_once_another_visitors_request_passed() -> None:
    pendo = one_bad(Answer(500))
    world = world_with(pendo, max_attempts=2)
    world.join()
    world.publish(value(BAD))
    world.run(until=600.0)
    assert endings(world) == {}, "nobody else passed"
    for number in range(120):
        world.publish_at(600.0 + 5 * number, value(f"o{number}"))
    world.run(until=1300.0)
    check_only_the_bad_one_died(world, Reason.ATTEMPTS_EXHAUSTED, 121)
    assert {sight.endpoint for sight in world.sights} == {EndpointName.METADATA}


@pytest.mark.parametrize("seed", range(10))
def test_what_failed_with_others_does_not_count_for_an_ids_own_pauses(seed: int) -> None:
    """Before the fix, a visitor from failing batches waited for up to a minute after one failure of its own."""
    alone: list[float] = []

    def script(world: World, ids: set[str]) -> Answer:
        if ids == {"v0"}:
            alone.append(world.now)
        return Answer(503) if BAD in ids or (len(alone) == 1 and ids == {"v0"}) else OK

    world = world_with(Pendo(script), seed=seed)
    world.join()
    publish_batch(world, 2)
    publish_others(world, 3)
    world.run(until=180.0)
    first, second, *_ = alone
    assert second - first < 3.0, "a first failure waits for two seconds at most"


def test_a_failed_batch_is_retried_although_new_ones_take_all_allowed_requests() -> None:
    """Before the fix, a failed batch waited until there were no new visitors, and held up all offsets after it."""
    answers = iter([Answer(503)])
    pendo = Pendo(lambda _world, _ids: next(answers, OK))
    policy = Policy(
        delivery=DeliverySettings(visitor_interval_seconds=0.0),
        metadata=MetadataSettings(linger_seconds=2.0),
        limits=EndpointLimits(metadata_requests_per_minute=20.0),
    )
    world = World(policy, Random(1), answering=pendo)
    world.join()
    for number in range(5 * 60):
        world.publish_at(number / 5, value(f"v{number}"))
    world.run(until=60.0)
    assert settled_seconds(world, "v0") < 60.0
