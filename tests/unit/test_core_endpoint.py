"""Endpoints: breaker, throttling, and telling a poisonous delivery from a wrong set-up."""

from __future__ import annotations

from itertools import pairwise

from flagpost_consumer.core.budget import Budget
from flagpost_consumer.core.endpoint import FAILURES_THAT_OPEN, Endpoint, EndpointState


def endpoint(connections: int = 8) -> Endpoint:
    return Endpoint(connections, Budget(None))


def start_all(subject: Endpoint, now: float = 0.0, limit: int = 100) -> int:
    """Start requests until no more may start; how many did."""
    started = 0
    while subject.opens_at(now) == now and started < limit:
        subject.start(f"v{started}")
        started += 1
    return started


def fail_until_down(subject: Endpoint, now: float = 0.0) -> None:
    for number in range(FAILURES_THAT_OPEN):
        subject.failed(subject.start(f"v{number}"), now)


def test_requests_start_up_to_the_limit_and_then_wait_for_an_answer() -> None:
    subject = endpoint(3)
    tickets = [subject.start(f"v{n}") for n in range(3)]
    assert subject.opens_at(5.0) is None
    subject.succeeded(tickets[0], 0.0)
    assert subject.opens_at(5.0) == 5.0


def test_ten_failures_in_a_row_open_the_breaker_and_probes_go_one_at_a_time() -> None:
    subject = endpoint()
    fail_until_down(subject)
    assert subject.is_down
    assert subject.state is EndpointState.UNREACHABLE
    now, waits = 0.0, []
    for number in range(7):
        opens = subject.opens_at(now)
        assert opens is not None
        waits.append(opens - now)
        now = opens
        probe = subject.start(f"p{number}")
        assert subject.opens_at(now) is None, "a second probe at once"
        subject.failed(probe, now)
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_nine_failures_do_not_and_a_success_starts_the_count_again() -> None:
    subject = endpoint()
    for _ in range(3):
        for number in range(FAILURES_THAT_OPEN - 1):
            subject.failed(subject.start(f"v{number}"), 0.0)
        assert not subject.is_down
        subject.succeeded(subject.start("v"), 0.0)


def test_one_visitor_alone_never_takes_the_endpoint_down() -> None:
    subject = endpoint()
    for _ in range(50):
        subject.failed(subject.start("hot"), 0.0)
    assert not subject.is_down
    assert subject.state is EndpointState.UNREACHABLE
    subject.failed(subject.start("another"), 0.0)
    assert subject.is_down


def test_after_an_outage_what_may_be_in_flight_starts_at_one_and_doubles() -> None:
    subject = endpoint(8)
    fail_until_down(subject)
    subject.succeeded(subject.start("probe"), 0.0)
    assert subject.state is EndpointState.OK
    sizes = []
    for _ in range(4):
        tickets = []
        while subject.opens_at(9.0) == 9.0:
            tickets.append(subject.start("v"))
        sizes.append(len(tickets))
        for ticket in tickets:
            subject.succeeded(ticket, 0.0)
    assert sizes == [1, 2, 4, 8]


def test_a_refusal_leaves_the_endpoint_open_and_another_visitors_success_is_told_from_its_own() -> None:
    subject = endpoint()
    subject.refused(subject.start("bad"), 0.0)
    assert not subject.is_down
    refused_at = subject.tickets
    probe = subject.start("good")
    assert subject.opens_at(0.0) == 0.0, "others go on side by side"
    subject.succeeded(probe, 0.0)
    assert subject.state is EndpointState.OK
    assert subject.another_started_after(refused_at, "bad")
    assert not subject.another_started_after(refused_at, "good"), "its own success is not another's"


def test_of_several_visitors_success_each_has_anothers() -> None:
    subject = endpoint()
    subject.succeeded(subject.start("first", of_several=True), 0.0)
    assert subject.passed_another("first") == 1


def test_a_few_refusals_among_many_requests_never_take_the_endpoint_down() -> None:
    """2 % random 404s with 64 requests in flight: two in a row are chance."""
    subject = endpoint(64)
    flying = [subject.start(f"v{number}") for number in range(64)]
    for refused in flying[:9]:
        subject.refused(refused, 0.0)
    was_down = subject.is_down
    subject.refused(flying[9], 0.0)
    assert (was_down, subject.is_down) == (False, True), "after nine, 55 requests were still to tell"
    assert subject.state is EndpointState.UNAUTHORIZED


def test_two_visitors_refused_is_a_wrong_set_up() -> None:
    subject = endpoint()
    subject.refused(subject.start("a"), 0.0)
    subject.refused(subject.start("b"), 0.0)
    assert subject.is_down
    assert subject.state is EndpointState.UNAUTHORIZED
    assert subject.opens_at(0.0) == 1.0


def test_a_success_that_started_before_the_refusal_proves_nothing() -> None:
    subject = endpoint()
    early = subject.start("early")
    subject.refused(subject.start("bad"), 0.0)
    refused_at = subject.tickets
    subject.succeeded(early, 0.0)
    assert not subject.another_started_after(refused_at, "bad")


def test_a_refusal_of_before_the_recovery_says_nothing_of_now() -> None:
    subject = endpoint()
    late = subject.start("late")
    subject.refused(subject.start("a"), 0.0)
    subject.refused(subject.start("b"), 0.0)
    subject.refused(subject.start("c"), 0.0)
    assert subject.is_down
    subject.succeeded(subject.start("d"), 0.0)
    assert subject.state is EndpointState.OK
    assert not subject.refused(late, 0.0)
    assert subject.refused(subject.start("e"), 0.0)


def test_one_visitor_refused_again_shows_unauthorized_but_lets_others_try() -> None:
    subject = endpoint()
    subject.refused(subject.start("only"), 0.0)
    subject.refused(subject.start("only"), 5.0)
    assert subject.state is EndpointState.UNAUTHORIZED
    assert not subject.is_down
    assert subject.opens_at(5.0) == 5.0
    subject.succeeded(subject.start("other"), 5.0)
    assert subject.opens_at(5.0) == 5.0


def test_a_new_secret_is_tried_at_once() -> None:
    subject = endpoint()
    subject.refused(subject.start("a"), 0.0)
    subject.refused(subject.start("b"), 0.0)
    old = subject.start("c")
    subject.secret_changed(0.5)
    assert subject.opens_at(0.5) == 0.5
    fresh = subject.start("d")
    subject.refused(old, 0.6)
    assert subject.opens_at(0.6) is None, "the answer to the old secret must not end the new one's probe"
    subject.succeeded(fresh, 0.0)
    assert subject.state is EndpointState.OK


def test_429s_of_three_visitors_hold_the_endpoint_and_halve_what_may_be_in_flight() -> None:
    subject = endpoint(8)
    subject.throttled(subject.start("a"), None, 0.0)
    subject.throttled(subject.start("a"), None, 1.0)
    subject.throttled(subject.start("b"), None, 2.0)
    assert subject.opens_at(2.0) == 2.0
    subject.throttled(subject.start("c"), 7.0, 3.0)
    assert subject.state is EndpointState.THROTTLED
    assert subject.opens_at(3.0) == 10.0
    probe = subject.start("d")
    assert subject.opens_at(10.0) is None, "one request at a time until one passes"
    subject.succeeded(probe, 0.0)
    assert start_all(subject, 10.0) == 4


def test_429s_hold_the_endpoint_only_as_a_share_of_the_answers() -> None:
    """0.5 % random 429s cut the throughput to a quarter when three of them were enough."""
    subject = endpoint(8)
    for number in range(2000):
        ticket = subject.start(f"v{number}")
        if number % 25 == 0:  # 4 %
            subject.throttled(ticket, None, number / 1000)
        else:
            subject.succeeded(ticket, number / 1000)
    assert subject.state is EndpointState.OK
    assert subject.limit == 8


def test_429s_over_more_than_ten_seconds_hold_only_their_lanes() -> None:
    subject = endpoint()
    for number in range(10):
        subject.throttled(subject.start(f"v{number}"), 1.0, number * 6.0)
    assert subject.state is EndpointState.OK


def test_429_to_everything_is_held_for_longer_and_longer() -> None:
    subject, now, holds = endpoint(64), 0.0, []
    tickets = [subject.start(f"v{number}") for number in range(64)]
    for ticket in tickets:
        subject.throttled(ticket, 0.0, now)
    for number in range(7):
        opens = subject.opens_at(now)
        assert opens is not None
        holds.append(opens - now)
        now = opens
        subject.throttled(subject.start(f"w{number}"), 0.0, now)
    assert holds == [1, 2, 4, 8, 16, 30, 30]


def test_after_throttling_the_limit_grows_by_about_one_a_round() -> None:
    subject = endpoint(8)
    for visitor in "abc":
        subject.throttled(subject.start(visitor), None, 0.0)
    subject.succeeded(subject.start("probe"), 0.0)
    sizes = []
    for _ in range(6):
        tickets = []
        while subject.opens_at(2.0) == 2.0:
            tickets.append(subject.start("v"))
        sizes.append(len(tickets))
        for ticket in tickets:
            subject.succeeded(ticket, 0.0)
    assert subject.state is EndpointState.OK
    assert sizes[0] == 4
    assert all(0 <= after - before <= 1 for before, after in pairwise(sizes))
    assert sizes[-1] > 6


def test_a_rejection_says_nothing_of_the_endpoint() -> None:
    subject = endpoint()
    for number in range(50):
        subject.rejected(subject.start(f"v{number}"), 0.0)
    assert subject.state is EndpointState.OK
    assert subject.in_flight == 0
