"""An event that is too large, or a request that becomes too large, is refused at the edge with the size in the error.

Before the fix, the publisher and the import took events of a megabyte, and a gateway's request of 500 KB became
hundreds of megabytes: names of nested objects are repeated for each member, and the shared part of a batch for each
message.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator

import pytest

from flagpost_consumer.settings import Settings
from flagpost_publisher import Publisher, PublisherError
from flagpost_publisher.gateway import bodies, native, segment
from flagpost_publisher.gateway.fronts import MAX_READING_BYTES, DocumentTooLarge
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_schemas import TrackEvent, encode_single_object, new_event_id, partition_key
from flagpost_settings.kafka import KafkaSettings
from fronts_reading import read_by
from imported_rows import import_bytes
from optimizely_fixtures import optimizely_client, user_of

MOST = 65_536


def event_of(size_bytes: int) -> TrackEvent:
    """A track event whose key and value have this many bytes together."""
    empty = TrackEvent(event_id="e", occurred_at=0, visitor_id="v", event="E", properties={"p": "x" * 20_000})
    missing = size_bytes - len(encode_single_object(empty)) - len(partition_key(empty) or b"")
    event = TrackEvent(
        event_id="e", occurred_at=0, visitor_id="v", event="E", properties={"p": "x" * (20_000 + missing)}
    )
    assert len(encode_single_object(event)) + 1 == size_bytes
    return event


@pytest.mark.parametrize(("size_bytes", "most"), [(MOST, None), (MOST + 1, None), (40_001, 40_000)])
def test_a_publisher_refuses_an_event_that_is_larger(size_bytes: int, most: int | None) -> None:
    told: list[PublisherError] = []
    limit = {} if most is None else {"max_event_bytes": most}
    publisher = Publisher(bootstrap_servers="127.0.0.1:1", on_error=told.append, **limit)  # type: ignore[arg-type]
    fits = size_bytes <= (most or MOST)

    assert publisher.publish(event_of(size_bytes)) is fits

    assert publisher.stats().refused == int(not fits)
    publisher.close(0)
    said = [str(error) for error in told if error.kind == "too_large"]
    assert len(said) == int(not fits)
    assert all(f"has {size_bytes:,} bytes in Kafka (key and value)" in each for each in said)
    assert all(f"the most is {most or MOST:,}" in each for each in said)


def test_a_decision_refused_for_its_size_is_not_a_duplicate_later() -> None:
    publisher = Publisher(bootstrap_servers="127.0.0.1:1", attributes=["plan"])
    client = optimizely_client()
    publisher.attach(client)

    user_of(client, "v", {"plan": "x" * MOST}).decide("banner")
    user_of(client, "v", {"plan": "gold"}).decide("banner")

    stats = publisher.stats()
    assert (stats.refused, stats.accepted, stats.duplicates) == (1, 1, 0)
    publisher.close(0)


def test_the_environment_can_set_the_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAGPOST_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("FLAGPOST_KAFKA__MAX_EVENT_BYTES", "1000")
    with Publisher.from_env() as publisher:
        assert not publisher.track("v", "E", {"p": "x" * 1000})
    for wrong in ("64k", "-1", "", "0", "٣"):
        monkeypatch.setenv("FLAGPOST_KAFKA__MAX_EVENT_BYTES", wrong)
        with pytest.raises(ValueError, match=r"(?i)max_event_bytes"):
            Publisher.from_env()


@pytest.mark.parametrize(("length", "refused"), [(60_000, []), (70_000, [(3, None)])])
def test_a_row_that_is_larger_is_named(length: int, refused: list[tuple[int, None]]) -> None:
    imported = import_bytes(f"visitor_id,a\nv,1\nw,{'x' * length}\n".encode(), "visitor")

    assert imported.refused == refused
    assert all("and the most is 65,536" in refusal.problem for refusal in imported.refusals)


def test_the_import_knows_the_setting() -> None:
    settings = Settings(kafka=KafkaSettings(max_event_bytes=200))

    assert import_bytes(b"visitor_id,a\nv," + b"x" * 300, "visitor", settings=settings).refused == [(2, None)]


def nested(levels: int, name: str, members: int) -> dict[str, object]:
    inner: dict[str, object] = {f"m{number}": number for number in range(members)}
    for _ in range(levels):
        inner = {name: inner}
    return inner


def test_repeated_names_do_not_make_a_request_grow_without_bound() -> None:
    """Less than 2 KB of JSON become about 60 KB, and a request may have hundreds of such events."""
    event = {"type": "track", "visitor_id": "v", "event": "E", "properties": nested(20, "n" * 40, 70)}
    document = [event] * 200
    assert len(json.dumps(document)) < 500_000

    with pytest.raises(DocumentTooLarge, match=r"becomes more than 3,000,000 bytes") as refused:
        read_by(native.read_events, document)

    assert 40 < (refused.value.index or 0) < 60


def test_the_shared_part_of_a_batch_does_not_make_it_grow_without_bound() -> None:
    message = {"type": "track", "userId": "u", "event": "E"}
    document = {"batch": [message] * 5_000, "context": {"page": {"url": "x" * 60_000}}}

    with pytest.raises(DocumentTooLarge):
        read_by(segment.FRONTS["/v1/batch"], document)


def test_a_usual_request_is_far_from_the_bound() -> None:
    events = [{"type": "track", "visitor_id": "v", "event": "E", "event_id": new_event_id()}] * 10_000

    reading = read_by(native.read_events, events)

    assert len(reading.events) == 10_000
    assert reading.size_bytes < MAX_READING_BYTES / 4


def read(body: bytes, hold: list[int]) -> bytes:
    async def chunks() -> AsyncIterator[bytes]:
        yield body

    return asyncio.run(bodies.read_body({"content-encoding": "gzip"}, chunks(), 1000, hold.append))


def test_a_body_of_many_gzip_members_is_refused() -> None:
    """A member of 20 bytes with nothing in it costs as much as a long one, and 28,000 of them fit into one body."""
    member = zlib.compress(b"", wbits=31)

    assert read(member * bodies.MAX_MEMBERS, []) == b""
    with pytest.raises(Refusal, match=f"more than {bodies.MAX_MEMBERS} members") as refused:
        read(member * (bodies.MAX_MEMBERS + 1), [])
    assert refused.value.status == 400


def test_the_memory_for_decompressing_is_counted() -> None:
    held: list[int] = []

    assert read(zlib.compress(b"x" * 900, wbits=31), held) == b"x" * 900
    assert sum(held) == bodies.INFLATING_BYTES + 900
