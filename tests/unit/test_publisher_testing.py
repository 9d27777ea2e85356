"""The Publisher for the tests of services: it records what a Publisher would send, and sends nothing."""

from __future__ import annotations

import threading
from typing import assert_type

import pytest

from flagpost_publisher import Publisher, PublisherError
from flagpost_publisher.testing import RecordingPublisher
from flagpost_schemas import AccountMetadata, DecisionEvent, Event, TrackEvent, VisitorMetadata
from optimizely_fixtures import optimizely_client, user_of


def test_decisions_are_recorded_as_a_publisher_would_send_them() -> None:
    publisher = RecordingPublisher(service="shop")
    client = optimizely_client()
    assert publisher.attach(client) > 0
    user_of(client, "v1").decide("banner")
    decision = publisher.assert_decided("banner", visitor_id="v1")
    assert_type(decision, DecisionEvent)
    assert decision.source is not None
    assert (decision.source.service, decision.rule_type) == ("shop", "delivery")
    user_of(client, "v1").decide("banner")  # the same decision again: a duplicate
    assert len(publisher.decisions) == 1
    assert publisher.stats().duplicates == 1
    publisher.close()
    user_of(client, "v2").decide("banner")
    assert len(publisher.decisions) == 1


def test_a_failed_assertion_lists_what_was_published() -> None:
    publisher = RecordingPublisher()
    publisher.track("v1", "Order Completed", {"revenue": 25.5, "items": [{"id": 1}]})
    event = publisher.assert_tracked("Order Completed", visitor_id="v1", properties={"revenue": 25.5})
    assert_type(event, TrackEvent)
    assert event.properties["items_count"] == 1
    with pytest.raises(
        AssertionError, match=r"no event 'Order Completed' of v2 .*\n  'Order Completed' of v1"
    ):
        publisher.assert_tracked("Order Completed", visitor_id="v2")
    with pytest.raises(
        AssertionError, match=r"no decision 'banner' for anybody: treatment was published; .* none"
    ):
        publisher.assert_decided("banner", variation_key="treatment")
    with pytest.raises(AssertionError, match="1 events were published"):
        publisher.assert_nothing_published()
    publisher.clear()
    publisher.assert_nothing_published()


def test_a_refused_event_is_reported_at_once_and_not_recorded() -> None:
    told: list[Exception] = []
    publisher = RecordingPublisher(on_error=told.append, max_event_bytes=200)
    assert not publisher.track("v1", "page", {"when": object()})
    assert not publisher.track("v1", "page", {"text": "x" * 500})
    publisher.assert_nothing_published()
    assert [error.kind for error in publisher.errors] == ["invalid", "too_large"]
    assert told == publisher.errors
    assert publisher.stats().refused == 2
    with pytest.raises(AssertionError, match="2 errors were reported"):
        publisher.assert_no_errors()


def test_no_thread_is_started_and_nothing_waits() -> None:
    before = set(threading.enumerate())
    with RecordingPublisher() as publisher:
        assert publisher.visitor("v1", {"plan": "gold"})
        assert publisher.account("acme", {"seats": 5})
        assert publisher.flush() == 0
    assert set(threading.enumerate()) == before
    assert [type(each) for each in publisher.events] == [VisitorMetadata, AccountMetadata]


def test_its_arguments_are_checked_like_those_of_a_publisher() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'servcie'"):
        RecordingPublisher(servcie="shop")
    with pytest.raises(ValueError, match="dedupe_ttl_seconds"):
        RecordingPublisher(dedupe_ttl_seconds=-1)


def test_it_can_be_used_wherever_a_publisher_is_expected() -> None:
    def serve(publisher: Publisher) -> None:
        publisher.track("v1", "Seen")

    publisher = RecordingPublisher()
    serve(publisher)
    assert_type(publisher.events, list[Event])
    assert_type(publisher.tracks, list[TrackEvent])
    assert_type(publisher.visitors, list[VisitorMetadata])
    assert_type(publisher.accounts, list[AccountMetadata])
    assert_type(publisher.errors, list[PublisherError])
    publisher.assert_decided  # noqa: B018 - a name of the interface
    assert len(publisher.tracks) == 1
