"""The real Optimizely SDK, the publisher and a broker: which events are on the topic afterwards."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid4

import pytest
from optimizely.decision.optimizely_decide_option import OptimizelyDecideOption

from deadlines import await_until
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_publisher import DeliveryFailed, EventRefused, Publisher, PublisherError, PublisherStats
from flagpost_schemas import (
    EVENT_TYPES,
    AccountMetadata,
    Context,
    DecisionEvent,
    Decoder,
    Event,
    MetadataGroup,
    TrackEvent,
    VisitorMetadata,
    schema_of,
)
from kafka_reading import read_topic
from optimizely_fixtures import EVERYONE, holdout, optimizely_client, user_of

NOBODY = "127.0.0.1:1"
PARTITIONS = 24
DEADLINE_SECONDS = 20.0
DISABLE_DECISION_EVENT = OptimizelyDecideOption.DISABLE_DECISION_EVENT


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({"partitioned": PARTITIONS}) as broker:
        yield broker


@pytest.fixture
def topic() -> str:
    return f"events-{uuid4()}"


def eventually(reached: Callable[[], object]) -> None:
    await_until(reached, DEADLINE_SECONDS)


def published(kafka: EmbeddedKafka, topic: str, decoder: Decoder | None = None) -> list[Event]:
    decode = (decoder or Decoder()).decode
    return [decode(record.value) for record in read_topic(kafka.bootstrap_servers, topic)]


def decisions(kafka: EmbeddedKafka, topic: str) -> list[DecisionEvent]:
    events = published(kafka, topic)
    assert all(isinstance(event, DecisionEvent) for event in events)
    return [event for event in events if isinstance(event, DecisionEvent)]


def brief(event: DecisionEvent) -> tuple[str, bool, str | None, str | None, bool]:
    return event.flag_key, event.enabled, event.variation_key, event.rule_key, event.decision_event_dispatched


def test_every_kind_of_decision_arrives_as_the_sdk_reported_it(kafka: EmbeddedKafka, topic: str) -> None:
    client = optimizely_client()
    before = time.time_ns() // 1_000_000
    with Publisher(
        bootstrap_servers=kafka.bootstrap_servers,
        topic=topic,
        service="shop",
        environment="test",
        attributes=["plan"],
        account_id="company",
    ) as publisher:
        assert publisher.attach(client) > 0
        user = user_of(client, "v1", {"plan": "gold", "company": "acme", "email": "secret"})
        user.decide_all()
        user_of(client, "v4").decide("checkout")
        user_of(client, "v5").decide_for_keys(["banner", "bare"], [DISABLE_DECISION_EVENT])
    after = time.time_ns() // 1_000_000

    events = {(event.visitor_id, event.flag_key): event for event in decisions(kafka, topic)}
    assert sorted(map(brief, events.values()), key=str) == [
        ("banner", True, "on", "banner_delivery", False),
        ("banner", True, "on", "banner_delivery", True),
        ("bare", False, None, None, False),
        ("bare", False, None, None, True),
        ("checkout", False, "control", "checkout_test", True),
        ("checkout", True, "treatment", "checkout_test", True),
        ("held", False, "ho_off", "held_holdout", True),
        ("legacy", False, "off", "legacy_delivery", True),
    ]
    assert {flag: event.rule_type for (_, flag), event in events.items()} == {
        "banner": "delivery",
        "bare": "none",
        "checkout": "experiment",
        "held": "holdout",
        "legacy": "delivery",
    }
    event = events["v1", "checkout"]
    assert (event.experiment_id, event.variation_id, event.account_id) == ("100", "101", "acme")
    assert event.attributes == {"plan": "gold"}
    assert event.source is not None
    assert (event.source.service, event.source.environment) == ("shop", "test")
    assert event.source.sdk == "optimizely-sdk"
    assert event.source.sdk_version is not None
    assert event.source.sdk_version.startswith("5.")
    assert all(before <= each.occurred_at <= after for each in events.values())
    assert all(UUID(each.event_id).version == 7 for each in events.values())
    assert publisher.stats() == PublisherStats(accepted=8, delivered=8)


def test_a_global_holdout_is_published(kafka: EmbeddedKafka, topic: str) -> None:
    client = optimizely_client(holdouts=[holdout("h9", "everybody", EVERYONE)])
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic) as publisher:
        publisher.attach(client)
        user_of(client, "v").decide("checkout")

    assert [brief(event) for event in decisions(kafka, topic)] == [
        ("checkout", False, "ho_off", "everybody", True)
    ]


def test_other_notifications_are_ignored(kafka: EmbeddedKafka, topic: str) -> None:
    client = optimizely_client()
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic) as publisher:
        publisher.attach(client)
        client.is_feature_enabled("checkout", "v")
        client.get_all_feature_variables("checkout", "v")
        client.activate("checkout_test", "v")
        user_of(client, "v").decide("no such flag")

    assert publisher.stats() == PublisherStats()


def test_unchanged_decisions_are_published_once_and_changes_each_time(
    kafka: EmbeddedKafka, topic: str
) -> None:
    client = optimizely_client()
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic) as publisher:
        publisher.attach(client)
        user = user_of(client, "v")
        for options in ([], [], [DISABLE_DECISION_EVENT], [], []):
            user.decide("banner", options)

    assert [event.decision_event_dispatched for event in decisions(kafka, topic)] == [True, False, True]
    assert publisher.stats() == PublisherStats(accepted=3, delivered=3, duplicates=2)


def test_decisions_of_a_detached_client_are_not_published(kafka: EmbeddedKafka, topic: str) -> None:
    client, other = optimizely_client(), optimizely_client()
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic) as publisher:
        publisher.attach(client)
        publisher.attach(other)
        publisher.detach(client)
        user_of(client, "v").decide("banner")
        user_of(other, "w").decide("banner")
    user_of(other, "x").decide("banner")

    assert [event.visitor_id for event in decisions(kafka, topic)] == ["w"]


def test_a_visitors_partition_is_that_of_the_java_client(kafka: EmbeddedKafka) -> None:
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic="partitioned") as publisher:
        for visitor in ("21", "foobar", "ünï"):
            publisher.track(visitor, "page")
        publisher.account("21", {"plan": "gold"})

    # Kafka's UtilsTest.testMurmur2 has the hashes of "21" and "foobar".
    expected = {
        b"21": (-973932308 & 0x7FFFFFFF) % PARTITIONS,
        b"foobar": (-790332482 & 0x7FFFFFFF) % PARTITIONS,
    }
    records = read_topic(kafka.bootstrap_servers, "partitioned")
    assert {record.key: record.partition for record in records if record.key in expected} == expected
    assert Counter(record.key for record in records) == {b"21": 2, b"foobar": 1, "ünï".encode(): 1}


def test_track_visitor_and_account_carry_what_they_are_given(kafka: EmbeddedKafka, topic: str) -> None:
    context = Context(url="https://shop.example/")
    with Publisher(
        bootstrap_servers=kafka.bootstrap_servers, topic=topic, consent={"analytics": True}
    ) as publisher:
        assert publisher.track(
            "v", "Order Completed", {"cart": {"total": 5}, "tags": ["a", "b"]}, occurred_at=7
        )
        assert publisher.track("v", "page", account_id="acme", context=context)
        assert publisher.visitor("v", {"plan": "gold", "tags": ["x"]}, group="agent")
        assert publisher.account("acme", {"seats": 5})

    order, page = (event for event in published(kafka, topic) if isinstance(event, TrackEvent))
    assert (order.event, order.properties, order.occurred_at) == (
        "Order Completed",
        {"cart_total": 5, "tags": "a,b"},
        7,
    )
    assert (page.account_id, page.context, page.consent) == ("acme", context, {"analytics": True})
    assert page.source is not None
    assert page.source.sdk == "flagpost-publisher"
    (visitor,) = (event for event in published(kafka, topic) if isinstance(event, VisitorMetadata))
    assert (visitor.group, visitor.values) == (MetadataGroup.AGENT, {"plan": "gold", "tags": ["x"]})
    (account,) = (event for event in published(kafka, topic) if isinstance(event, AccountMetadata))
    assert (account.account_id, account.values, account.consent) == (
        "acme",
        {"seats": 5},
        {"analytics": True},
    )


def test_published_events_are_sent_unchanged(kafka: EmbeddedKafka, topic: str) -> None:
    event = TrackEvent(event_id="mine", occurred_at=5, anonymous_id="a", event="page")
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic) as publisher:
        assert publisher.publish(event)

    assert published(kafka, topic) == [event]
    assert [record.key for record in read_topic(kafka.bootstrap_servers, topic)] == [b"a"]


def test_a_wrong_event_raises_nothing_and_is_refused_counted_and_reported() -> None:
    def angry(_user_id: str, _attributes: object) -> str:
        raise LookupError("no such user")

    told: list[Exception] = []
    publisher = Publisher(bootstrap_servers=NOBODY, visitor_id=angry, on_error=told.append)
    client = optimizely_client()
    publisher.attach(client)
    event = TrackEvent(event_id="e", occurred_at=0, event="page")

    user_of(client, "v").decide("banner")
    refused = [
        publisher.publish("no event"),  # type: ignore[arg-type]
        publisher.publish(replace(event, event_id="x" * 129)),
        publisher.publish(replace(event, event_id="")),
        publisher.publish(replace(event, occurred_at="now")),  # type: ignore[arg-type]
        publisher.track(None, "page"),  # type: ignore[arg-type]
        publisher.track("v", "page", {"when": object()}),
        publisher.track("v", "page", 5),  # type: ignore[arg-type]
        publisher.visitor("v", {"a": 1}, group="other"),
        publisher.visitor("v", None),  # type: ignore[arg-type]
        publisher.account("a", {"a": {"nested": 1}}),  # type: ignore[dict-item]
    ]
    publisher.close(0)

    assert refused == [False] * 10
    assert publisher.stats() == PublisherStats(refused=11)
    kinds = {error.kind: error for error in told if isinstance(error, EventRefused)}
    assert kinds.keys() == {"invalid", "raised", "no_visitor_id"}
    assert sum(error.count for error in told if isinstance(error, EventRefused)) == 11


def test_what_a_callable_raised_is_the_cause() -> None:
    told: list[Exception] = []
    error = LookupError("no such user")

    def angry(_user_id: str, _attributes: object) -> str:
        raise error

    publisher = Publisher(bootstrap_servers=NOBODY, consent=angry, on_error=told.append)  # type: ignore[arg-type]
    publisher.track("v", "page")
    publisher.close(0)

    assert [each.__cause__ for each in told if isinstance(each, EventRefused)] == [error]


@pytest.mark.parametrize("client", [None, object()])
def test_an_object_that_is_not_a_client_is_not_attached(client: object) -> None:
    told: list[Exception] = []
    publisher = Publisher(bootstrap_servers=NOBODY, on_error=told.append)

    assert publisher.attach(client) == -1
    publisher.detach(client)
    publisher.close(0)

    assert "attach" in [error.kind for error in told if isinstance(error, PublisherError)]


ATTACHING = """
import sys
if {without_sdk}:
    sys.modules["optimizely"] = None  # what an import finds where it is not installed
from flagpost_publisher import Publisher
publisher = Publisher(bootstrap_servers="127.0.0.1:1", {more})
sys.stdout.write(str(publisher.attach({client})))
publisher.close(0)
"""


def attaching(client: str = "object()", *, without_sdk: bool = False, more: str = "") -> tuple[str, str]:
    """Run a program that attaches without setting up logging; returns its standard output and standard error."""
    program = ATTACHING.format(client=client, without_sdk=without_sdk, more=more)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_a_mistake_in_attaching_is_seen_without_any_logging_set_up() -> None:
    """Before, attach(object()) returned -1 and printed nothing."""
    returned, said = attaching()
    assert returned == "-1"
    assert (
        "attach() has added no listener: AttributeError was raised, because the given client is of type object"
        in said
    )
    assert "give an optimizely.optimizely.Optimizely" in said
    assert len(said.splitlines()) == 1
    configured = "on_error=__import__('logging').basicConfig() or None"
    assert attaching(more=configured)[1].count("no listener") == 1
    assert attaching(more="on_error=lambda error: None")[1] == ""


def test_without_the_sdk_the_error_says_that_it_is_missing() -> None:
    _, said = attaching(without_sdk=True)
    assert "the Optimizely SDK is not installed; pip install 'flagpost-publisher[optimizely]'" in said


def test_attaching_twice_is_reported_and_publishes_once(kafka: EmbeddedKafka, topic: str) -> None:
    client = optimizely_client()
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic, dedupe_ttl_seconds=0) as publisher:
        assert publisher.attach(client) > 0
        assert publisher.attach(client) == -1
        user_of(client, "v").decide("banner")

    assert len(decisions(kafka, topic)) == 1


def test_a_full_queue_refuses_events_and_does_not_remember_them() -> None:
    told: list[Exception] = []
    publisher = Publisher(bootstrap_servers=NOBODY, queue_max_messages=5, on_error=told.append)
    client = optimizely_client()
    publisher.attach(client)
    for visitor in range(8):
        user_of(client, f"v{visitor}").decide("banner")
    user_of(client, "v7").decide("banner")  # it was refused before, so it is no duplicate
    user_of(client, "v0").decide("banner")  # it waits in the queue, so it is a duplicate

    assert publisher.stats() == PublisherStats(accepted=5, queued=5, refused=4, duplicates=1)
    assert publisher.close(0) == 5
    assert publisher.stats() == PublisherStats(accepted=5, failed=5, refused=4, duplicates=1)
    counts: Counter[type] = Counter()
    for error in told:  # how many calls tell them depends on how soon the thread looks
        if isinstance(error, PublisherError):
            counts[type(error)] += error.count
    assert counts[EventRefused] == 4
    assert counts[DeliveryFailed] == 5
    assert not publisher.track("v", "page")
    assert publisher.close(0) == 0


def test_what_kafka_did_not_accept_is_counted_and_not_remembered() -> None:
    told: list[Exception] = []
    publisher = Publisher(
        bootstrap_servers=NOBODY,
        properties={"message.timeout.ms": 100, "linger.ms": 1},
        on_error=told.append,
    )
    client = optimizely_client()
    publisher.attach(client)
    user = user_of(client, "v")
    user.decide("banner")
    user.decide("banner")
    eventually(lambda: publisher.stats().failed == 1)

    def published_again() -> bool:
        user.decide("banner")
        return publisher.stats().accepted == 2

    eventually(published_again)
    eventually(lambda: any(isinstance(error, DeliveryFailed) for error in told))
    assert publisher.stats().duplicates >= 1
    publisher.close(0)


def test_an_event_too_large_for_kafka_is_refused(kafka: EmbeddedKafka, topic: str) -> None:
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic) as publisher:
        assert publisher.track("v", "page")
        publisher.flush()
        assert not publisher.track("v", "page", {"text": "x" * 2_000_000})

    assert publisher.stats() == PublisherStats(accepted=1, delivered=1, refused=1)


def test_an_event_too_large_that_waited_fails_and_holds_up_nothing(kafka: EmbeddedKafka, topic: str) -> None:
    publisher = Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic, max_event_bytes=20_000_000)
    with publisher._here().output._lock:  # the thread cannot switch to sending directly: both wait
        publisher.track("v", "page", {"text": "x" * 2_000_000})
        publisher.track("v", "page")
    publisher.close()

    assert publisher.stats() == PublisherStats(accepted=2, delivered=1, failed=1)
    assert len(published(kafka, topic)) == 1


def test_threads_share_a_publisher(kafka: EmbeddedKafka, topic: str) -> None:
    client = optimizely_client()
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic) as publisher:
        publisher.attach(client)

        def decide(thread: int) -> None:
            for number in range(100):
                user_of(client, f"{thread}-{number % 50}").decide("banner")

        threads = [threading.Thread(target=decide, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert publisher.stats() == PublisherStats(accepted=400, delivered=400, duplicates=400)
    assert len({event.visitor_id for event in decisions(kafka, topic)}) == 400


def test_order_is_kept_across_the_wait_for_the_producer(kafka: EmbeddedKafka, topic: str) -> None:
    with Publisher(bootstrap_servers=kafka.bootstrap_servers, topic=topic) as publisher:
        for number in range(2_000):
            assert publisher.track("v", str(number))

    events = [event.event for event in published(kafka, topic) if isinstance(event, TrackEvent)]
    assert events == [str(number) for number in range(2_000)]


class StandInRegistry(BaseHTTPRequestHandler):
    """A schema registry whose first requests fail with the statuses in `failures`; ids are 70, 71, …"""

    schemas: dict[str, dict[str, Any]]
    seen: list[tuple[str, str | None]]
    failures: list[int]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.path, self.headers["authorization"]))
        subject, _, register = self.path.removeprefix("/subjects/").partition("/")
        if self.failures:
            self._answer(self.failures.pop(), b"{}")
        elif register:
            self.schemas[subject] = {"id": 70 + len(self.schemas), "schema": body["schema"]}
            self._answer(200, json.dumps({"id": self.schemas[subject]["id"]}).encode())
        elif subject in self.schemas:
            self._answer(200, json.dumps(self.schemas[subject]).encode())
        else:
            self._answer(404, b'{"error_code":40401}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Do not log requests."""


@pytest.fixture
def registry() -> Iterator[tuple[str, type[StandInRegistry]]]:
    handler = type("Registry", (StandInRegistry,), {"schemas": {}, "seen": [], "failures": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def test_with_a_registry_events_wait_for_ids_and_are_sent_in_confluents_format(
    kafka: EmbeddedKafka, topic: str, registry: tuple[str, type[StandInRegistry]]
) -> None:
    address, stand_in = registry
    stand_in.failures.extend([503, 500])
    told: list[Exception] = []
    with Publisher(
        bootstrap_servers=kafka.bootstrap_servers,
        topic=topic,
        schema_registry_url=f"http://me:p%40ss@{address}/",
        on_error=told.append,
    ) as publisher:
        for number in range(50):
            assert publisher.track("v", str(number))
        assert publisher.flush() == 0

    subjects = [f"{topic}-io.flagpost.v1.{event_type.__name__}" for event_type in EVENT_TYPES]
    assert list(stand_in.schemas) == subjects
    assert {authorization for _, authorization in stand_in.seen} == {"Basic bWU6cEBzcw=="}
    decoder = Decoder()
    decoder.add_schema(71, schema_of(TrackEvent).text)
    events = published(kafka, topic, decoder)
    assert [event.event for event in events if isinstance(event, TrackEvent)] == [
        str(each) for each in range(50)
    ]
    assert any("answered 500" in str(error) for error in told)
    assert not any("p@ss" in str(error) or "p%40ss" in str(error) for error in told)


def test_a_registry_that_knows_the_schemas_is_only_queried(
    kafka: EmbeddedKafka, topic: str, registry: tuple[str, type[StandInRegistry]]
) -> None:
    address, stand_in = registry
    for _ in range(2):
        with Publisher(
            bootstrap_servers=kafka.bootstrap_servers,
            topic=topic,
            schema_registry_url=f"http://{address}",
            properties={"schema.registry.basic.auth.user.info": "you:too"},
        ) as publisher:
            publisher.track("v", "page")

    assert [path.endswith("/versions") for path, _ in stand_in.seen] == [False, True] * 4 + [False] * 4
    assert {authorization for _, authorization in stand_in.seen} == {"Basic eW91OnRvbw=="}


def test_without_an_answer_from_the_registry_the_buffer_is_bounded_and_counted() -> None:
    publisher = Publisher(
        bootstrap_servers=NOBODY, schema_registry_url="http://127.0.0.1:1", queue_max_messages=3
    )
    taken = [publisher.track("v", "page") for _ in range(5)]

    assert taken == [True, True, True, False, False]
    assert publisher.stats() == PublisherStats(accepted=3, queued=3, refused=2)
    assert publisher.close(0) == 3
    assert publisher.stats() == PublisherStats(accepted=3, failed=3, refused=2)


def test_the_waiting_events_are_bounded_in_bytes_too() -> None:
    publisher = Publisher(
        bootstrap_servers=NOBODY, schema_registry_url="http://127.0.0.1:1", max_event_bytes=20_000_000
    )
    taken = [publisher.track("v", "page", {"text": "x" * 10_000_000}) for _ in range(8)]
    publisher.close(0)

    assert taken == [True] * 6 + [False] * 2
