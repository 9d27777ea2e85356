"""Endpoints: breaker, throttling, and distinguishing a poisonous delivery from a wrong set-up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.core.pendo.budget import Budget
from flagpost_consumer.core.pendo.endpoint import FAILURES_THAT_OPEN, Endpoint, EndpointState, Ticket


def endpoint(connections: int = 8) -> Endpoint:
    return Endpoint(connections, Budget(None))


def start_all(subject: Endpoint, now: float = 0.0, limit: int = 100) -> int:
    """Start requests until no more may start; returns how many did."""
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
    assert (subject.tickets, subject.in_flight) == (3, 3)
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


def test_nine_failures_do_not_open_the_breaker_and_a_success_resets_the_count() -> None:
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


def test_after_an_outage_the_limit_in_flight_starts_at_one_and_doubles() -> None:
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


def test_a_refusal_leaves_the_endpoint_open_and_another_visitors_success_is_distinguished_from_its_own() -> (
    None
):
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


def test_a_success_of_several_visitors_counts_for_each_as_anothers() -> None:
    subject = endpoint()
    subject.succeeded(subject.start("first", of_several=True), 0.0)
    assert subject.passed_another("first") == 1


def test_a_few_refusals_among_many_requests_never_take_the_endpoint_down() -> None:
    """With 2 % random 404s and 64 requests in flight, two refusals in a row happen by chance."""
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


def test_a_refusal_from_before_the_recovery_is_ignored() -> None:
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


def test_429s_of_three_visitors_hold_the_endpoint_and_halve_the_limit_in_flight() -> None:
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
    """Before the fix, three 429s were enough: 0.5 % random 429s cut the throughput to a quarter."""
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


def test_429s_to_everything_hold_the_endpoint_for_longer_each_time() -> None:
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


def test_a_rejection_does_not_change_the_endpoint() -> None:
    subject = endpoint()
    for number in range(50):
        subject.rejected(subject.start(f"v{number}"), 0.0)
    assert subject.state is EndpointState.OK
    assert subject.in_flight == 0


def test_after_a_rejected_probe_another_visitor_is_asked_soon() -> None:
    """Before the fix, a visitor whose events are all rejected was the probe again and again, after growing pauses."""
    subject = endpoint()
    fail_until_down(subject)
    for number in range(3):
        subject.failed(subject.start(f"p{number}"), 10.0 * number)
    assert subject.opens_at(100.0) == 100.0
    subject.rejected(subject.start("poison"), 100.0)
    assert subject.is_down, "one delivery's refusal does not say that others pass"
    assert subject.opens_at(100.0) == 101.0
    assert (subject.rejected_probes, subject.last_failed) == ({"poison"}, "poison")
    subject.succeeded(subject.start("v"), 101.0)
    assert not subject.rejected_probes


def test_visitors_whose_probe_was_rejected_are_remembered_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flagpost_consumer.core.pendo.endpoint.MAX_REJECTED_PROBES", 2)
    subject = endpoint()
    fail_until_down(subject)
    for number in range(3):
        subject.rejected(subject.start(f"p{number}"), 1.0 + number)
    assert (subject.rejected_probes, subject.last_failed) == ({"p0", "p1"}, "p2")


# Successes of other visitors


@given(st.data())
def test_the_remembered_successes_answer_like_a_full_list_of_them(data: st.DataObject) -> None:
    """Answers come in any order; the endpoint remembers only the latest successes."""
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=8))
    subject = endpoint(8)
    tickets = [subject.start(name) for name in names]
    passed = data.draw(st.lists(st.sampled_from(tickets), unique_by=id))
    for ticket in passed:
        subject.succeeded(ticket, 0.0)
    for who in "abcd":
        others = [(order, each.number) for order, each in enumerate(passed, 1) if each.who != who]
        assert subject.passed_another(who) == max((order for order, _ in others), default=0)
        for number in range(len(names) + 1):
            expected = any(started > number for _, started in others)
            assert subject.another_started_after(number, who) == expected


# Probes


def down(subject: Endpoint) -> Endpoint:
    """Take an endpoint down at second 0 by transient failures; it probes from second 1."""
    fail_until_down(subject)
    assert subject.is_down
    return subject


def test_an_endpoint_that_is_down_waits_for_as_long_as_pendo_asks() -> None:
    subject = down(endpoint())
    subject.failed(subject.start("p"), 1.0, retry_after=90.0)
    assert subject.opens_at(1.0) == 91.0
    subject.throttled(subject.start("p"), 40.0, 91.0)
    assert subject.opens_at(91.0) == 131.0
    subject.throttled(subject.start("p"), None, 131.0)
    assert subject.opens_at(131.0) == 139.0, "8 s: the fourth wait"


def test_a_probe_waits_for_the_budget_too() -> None:
    subject = down(endpoint())
    subject.budget = Budget(60.0)
    subject.budget.share(1.0, 1.0)
    assert subject.opens_at(0.5) == 1.0
    assert subject.opens_at(1.0) == pytest.approx(2.0), "the share starts empty"


def test_a_probe_that_is_rejected_is_followed_by_another() -> None:
    """A 400 is about one delivery; it does not show that Pendo works again."""
    subject = down(endpoint())
    probe = subject.start("p")
    subject.rejected(probe, 1.0)
    assert subject.is_down
    assert subject.opens_at(1.0) == 2.0


@pytest.mark.parametrize(
    "answer",
    [
        lambda subject, late: subject.failed(late, 0.5, 200.0),
        lambda subject, late: subject.throttled(late, 200.0, 0.5),
        lambda subject, late: subject.rejected(late, 0.5),
        lambda subject, late: subject.refused(late, 0.5),
    ],
)
def test_while_the_endpoint_is_down_only_the_probe_s_answer_counts(
    answer: Callable[[Endpoint, Ticket], object],
) -> None:
    subject = endpoint(64)
    late = subject.start("late")
    down(subject)
    answer(subject, late)
    assert subject.opens_at(0.5) == 1.0
    assert subject.state is EndpointState.UNREACHABLE


def test_a_rejection_while_the_endpoint_works_starts_no_probes() -> None:
    subject = endpoint()
    ticket = subject.start("a")
    subject.rejected(ticket, 0.0)
    down(subject)
    assert subject.opens_at(0.0) == 1.0, "the first wait is one second"


def test_a_refused_probe_shows_a_wrong_set_up_and_requests_from_before_then_prove_nothing() -> None:
    subject = endpoint(64)
    before = subject.start("before")
    down(subject)
    assert subject.refused(subject.start("p"), 1.0)
    assert subject.state is EndpointState.UNAUTHORIZED
    assert subject.opens_at(1.0) == 3.0
    subject.succeeded(before, 1.5)
    assert subject.is_down
    subject.succeeded(subject.start("p"), 3.0)
    assert subject.is_open


def test_the_last_request_that_began_before_a_refusal_took_it_down_proves_nothing() -> None:
    subject = endpoint()
    first, second, last = (subject.start(name) for name in ("a", "b", "c"))
    subject.refused(first, 0.0)
    subject.refused(second, 0.0)
    assert subject.state is EndpointState.UNAUTHORIZED
    subject.succeeded(last, 0.1)
    assert subject.is_down


def test_a_success_from_before_an_outage_ends_it_if_nothing_was_refused() -> None:
    subject = endpoint(64)
    late = subject.start("late")
    down(subject)
    subject.succeeded(late, 0.5)
    assert subject.is_open
    assert subject.state is EndpointState.OK
    assert subject.opens_at(0.5) == 0.5


def test_after_an_outage_of_refusals_a_success_from_before_it_counts_again() -> None:
    subject = endpoint(64)
    late = subject.start("late")
    for visitor in ("a", "b", "c"):
        subject.refused(subject.start(visitor), 0.0)
    assert subject.is_down
    subject.succeeded(subject.start("p"), 1.0)
    for number in range(FAILURES_THAT_OPEN - 1):
        subject.failed(subject.start(f"v{number}"), 2.0)
    subject.succeeded(late, 2.0)
    subject.failed(subject.start("w"), 2.0)
    assert not subject.is_down


def test_each_outage_is_probed_from_one_second_on() -> None:
    subject = down(endpoint())
    for now in (1.0, 3.0, 7.0):
        subject.failed(subject.start("p"), now)
    subject.succeeded(subject.start("p"), 15.0)
    fail_until_down(subject, 20.0)
    assert subject.opens_at(20.0) == 21.0


@pytest.mark.parametrize(
    ("refusals", "state"),
    [(4, EndpointState.UNREACHABLE), (5, EndpointState.UNREACHABLE), (6, EndpointState.UNAUTHORIZED)],
)
def test_an_outage_has_the_cause_of_most_of_its_failures(refusals: int, state: EndpointState) -> None:
    subject = endpoint(64)
    tickets = [subject.start(f"v{number}") for number in range(40)]
    for ticket in tickets[:refusals]:
        subject.refused(ticket, 0.0)
    for ticket in tickets[refusals:FAILURES_THAT_OPEN]:
        subject.failed(ticket, 0.0)
    assert subject.is_down
    assert subject.state is state


def test_the_visitor_that_failed_last_is_known_until_a_request_succeeds() -> None:
    subject = endpoint()
    known = [subject.last_failed]
    subject.failed(subject.start("a"), 0.0)
    known.append(subject.last_failed)
    subject.refused(subject.start("b"), 0.0)
    known.append(subject.last_failed)
    subject.succeeded(subject.start("c"), 0.0)
    assert [*known, subject.last_failed] == [None, "a", "b", None]


# A new secret


def test_failures_with_the_old_secret_are_forgotten() -> None:
    subject = endpoint()
    subject.refused(subject.start("a"), 0.0)
    last = subject.start("b")
    subject.secret_changed(0.1)
    assert subject.last_failed is None
    assert not subject.refused(last, 0.2)
    assert subject.refused(subject.start("b"), 0.3)
    assert not subject.is_down, "one refusal of the new secret"


def test_requests_with_the_old_secret_that_fail_later_do_not_count() -> None:
    subject = endpoint(64)
    old = [subject.start(f"v{number}") for number in range(FAILURES_THAT_OPEN)]
    subject.secret_changed(0.0)
    for ticket in old:
        subject.failed(ticket, 0.1)
    assert subject.state is EndpointState.OK
    for number in range(FAILURES_THAT_OPEN - 1):
        subject.failed(subject.start(f"w{number}"), 0.2)
    assert not subject.is_down
    subject.failed(subject.start("w"), 0.2)
    assert subject.is_down


def test_a_new_secret_during_an_outage_resets_the_waits_and_keeps_the_state_until_an_answer() -> None:
    subject = endpoint()
    subject.refused(subject.start("a"), 0.0)
    subject.refused(subject.start("b"), 0.0)
    for now in (1.0, 3.0, 7.0):
        subject.refused(subject.start("p"), now)
    subject.secret_changed(8.0)
    assert subject.state is EndpointState.UNAUTHORIZED
    assert subject.opens_at(8.0) == 8.0
    subject.failed(subject.start("p"), 8.0)
    assert subject.opens_at(8.0) == 9.0


# Throttling


def held(subject: Endpoint, now: float = 0.0, retry_after: float | None = None) -> Endpoint:
    """Hold an endpoint by 429s of three visitors."""
    for visitor in "abc":
        subject.throttled(subject.start(visitor), retry_after, now)
    assert subject.state is EndpointState.THROTTLED
    return subject


def test_429s_exactly_ten_seconds_apart_are_counted_together() -> None:
    subject = endpoint()
    for visitor, now in (("a", 0.0), ("b", 5.0), ("c", 10.0)):
        subject.throttled(subject.start(visitor), None, now)
    assert subject.state is EndpointState.THROTTLED


@pytest.mark.parametrize(("passed", "state"), [(57, EndpointState.THROTTLED), (58, EndpointState.OK)])
def test_429s_hold_the_endpoint_if_they_are_a_twentieth_of_the_answers(
    passed: int, state: EndpointState
) -> None:
    subject = endpoint(8)
    for number in range(passed):
        subject.succeeded(subject.start(f"v{number}"), 0.0)
    for visitor in "abc":
        subject.throttled(subject.start(visitor), None, 0.5)
    assert subject.state is state


def test_answers_from_more_than_ten_seconds_ago_do_not_count() -> None:
    subject = endpoint(8)
    for number in range(1000):
        subject.succeeded(subject.start(f"v{number}"), 0.0)
    assert held(subject, 11.0).limit == 4


@pytest.mark.parametrize(("now", "state"), [(10.0, EndpointState.OK), (10.5, EndpointState.THROTTLED)])
def test_answers_count_for_ten_seconds(now: float, state: EndpointState) -> None:
    subject = endpoint(8)
    for number in range(1000):
        subject.succeeded(subject.start(f"v{number}"), 0.0)
    for visitor in "abc":
        subject.throttled(subject.start(visitor), None, now)
    assert subject.state is state


def test_an_answer_belongs_to_the_second_in_which_it_came() -> None:
    """If one of the successes at second 1 were counted in second 0, the 429s would hold the endpoint."""
    subject = endpoint(8)
    for number in range(59):
        subject.succeeded(subject.start(f"v{number}"), 1.0 if number else 0.0)
    for visitor in "abc":
        subject.throttled(subject.start(visitor), None, 10.5)
    assert subject.state is EndpointState.OK


def test_a_success_of_a_request_from_before_the_hold_does_not_end_it() -> None:
    subject = endpoint(8)
    tickets = [subject.start(visitor) for visitor in "abcd"]
    for ticket in tickets[:3]:
        subject.throttled(ticket, None, 0.0)
    probe = subject.start("p")
    subject.succeeded(tickets[3], 0.1)
    assert subject.state is EndpointState.THROTTLED
    assert subject.opens_at(5.0) is None, "the probe is still under way"
    subject.succeeded(probe, 5.0)
    assert subject.is_open


def test_only_the_probe_s_429_makes_the_hold_longer() -> None:
    subject = endpoint(8)
    late = subject.start("late")
    held(subject)
    subject.throttled(late, 200.0, 0.5)
    assert subject.opens_at(0.5) == 1.0
    subject.throttled(subject.start("p"), 60.0, 1.0)
    assert subject.opens_at(1.0) == 61.0
    assert subject.limit == 4, "halved once a hold"


@pytest.mark.parametrize(("since", "hold"), [(9.5, 1.0), (10.0, 60.0)])
def test_a_retry_after_is_the_visitor_s_own_if_another_passed_within_ten_seconds(
    since: float, hold: float
) -> None:
    subject = endpoint(8)
    subject.succeeded(subject.start("v"), 5.0)
    now = 5.0 + since
    assert held(subject, now, 60.0).opens_at(now) == now + hold


def test_a_probe_s_retry_after_too() -> None:
    subject = endpoint(8)
    subject.succeeded(subject.start("v"), 0.0)
    held(subject, 1.0)
    subject.throttled(subject.start("p"), 60.0, 2.0)
    assert subject.opens_at(2.0) == 4.0
    subject.throttled(subject.start("p"), 60.0, 10.0)
    assert subject.opens_at(10.0) == 70.0


def test_each_hold_begins_with_one_second_and_with_429s_of_its_own() -> None:
    subject = held(endpoint(8))
    subject.throttled(subject.start("p"), None, 1.0)
    assert subject.opens_at(1.0) == 3.0
    subject.succeeded(subject.start("p"), 3.0)
    subject.throttled(subject.start("d"), None, 3.0)
    assert subject.state is EndpointState.OK, "those of the hold before are not counted again"
    held(subject, 20.0)
    assert subject.opens_at(20.0) == 21.0


def test_the_limit_in_flight_is_never_halved_below_one() -> None:
    subject = endpoint(1)
    held(subject)
    assert subject.limit == 1
    subject.succeeded(subject.start("p"), 1.0)
    assert (subject.limit, subject.opens_at(1.0)) == (1, 1.0)


def test_halves_are_kept_when_the_limit_is_odd() -> None:
    """3 is halved to 1.5, and one success raises it to 2.2: two in flight."""
    subject = held(endpoint(3))
    assert subject.limit == 1
    subject.succeeded(subject.start("p"), 1.0)
    assert subject.limit == 2


def test_a_held_endpoint_that_goes_down_starts_no_probe_before_the_hold_is_over() -> None:
    subject = endpoint(64)
    flying = [subject.start(f"v{number}") for number in range(FAILURES_THAT_OPEN)]
    held(subject, retry_after=100.0)
    for ticket in flying:
        subject.failed(ticket, 0.0)
    assert subject.is_down
    assert subject.opens_at(0.0) == 100.0
