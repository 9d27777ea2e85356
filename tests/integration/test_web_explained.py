"""The page explains a visitor and opens a dead letter, with a real Kafka: with ids shown, and hidden."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from dead_letter_topics import DeadLetterTopics, letter, settled, step
from real_kafka.broker import KafkaBroker
from traffic import produce, publish
from web_running import RunningWeb

pytestmark = pytest.mark.kafka

VISITOR, OTHER, ACCOUNT = "ada-lovelace", "grace-hopper", "analytical-engines"
PENDO_SAYS = f"Pendo: {VISITOR} is {OTHER}"
TOLD_OF_SUPPRESSED = "The visitor is suppressed"


@pytest.fixture
def topics(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> DeadLetterTopics:
    """Topics with one partition, so that the places of records are known."""
    found = DeadLetterTopics(kafka, fresh_name("explained"), partitions=1)
    found.settings["kafka.suppressions_topic"] = f"{found.events}.suppressions"
    return found


def tell(topics: DeadLetterTopics) -> str:
    """Write two events of a visitor, one delivered, and one that Pendo refused in words that name another visitor;
    returns the dead letter's place.
    """
    delivered, refused = (step(each, VISITOR, account_id=ACCOUNT) for each in ("e1", "e2"))
    publish(topics.kafka.bootstrap_servers or "", topics.events, [delivered, refused])
    topics.settle(
        settled(delivered, bytes(16), visitor_id=VISITOR, event_id="e1", attempts=1, status=200),
        settled(
            refused,
            bytes(16),
            offset=1,
            outcome="dead_lettered",
            reason="rejected",
            visitor_id=VISITOR,
            event_id="e2",
            attempts=1,
            status=400,
        ),
    )
    (place,) = topics.bury(
        letter(
            refused,
            original=[("x-signed-in", OTHER.encode())],
            detail=PENDO_SAYS,
            source=f"{topics.events}/0/1",
        )
    )
    return place


def who(text: str) -> set[str]:
    return {each for each in (VISITOR, OTHER, ACCOUNT) if each in text}


@pytest.mark.parametrize("show_ids", [True, False])
async def test_a_visitor_is_explained_and_a_dead_letter_opened(
    topics: DeadLetterTopics,
    show_ids: bool,
) -> None:
    place = await asyncio.to_thread(tell, topics)
    asked = urlencode({"visitor": VISITOR})
    with RunningWeb({**topics.settings, "web.show_ids": show_ids}) as page:
        await page.until_read()
        explained = await asyncio.to_thread(page.get, f"/explain?{asked}")
        assert explained.status == 200
        assert who(explained.text) == ({VISITOR, OTHER} if show_ids else {VISITOR})
        assert TOLD_OF_SUPPRESSED not in explained.text
        rows = await asyncio.to_thread(page.table, "explain", visitor=VISITOR)
        assert [
            (row["State"], row["Reason"], row["Status"]) for row in rows if row["Delivery"] == "track"
        ] == [
            ("delivered", "ok", "200"),
            ("dead_lettered", "rejected", "400"),
        ]
        assert any(OTHER in row["Why"] for row in rows) == show_ids
        opened = await asyncio.to_thread(page.get, f"/dead-letter?{urlencode({'place': place})}")
        assert opened.status == 200
        assert who(opened.text) == ({VISITOR, OTHER, ACCOUNT} if show_ids else set())


@pytest.mark.parametrize("show_ids", [True, False])
async def test_a_suppressed_visitor_is_shown_as_suppressed(
    kafka: KafkaBroker,
    topics: DeadLetterTopics,
    show_ids: bool,
) -> None:
    await asyncio.to_thread(tell, topics)
    suppressions = str(topics.settings["kafka.suppressions_topic"])
    kafka.create_topics(suppressions, partitions=1, config={"cleanup.policy": "compact"})
    produce(kafka.bootstrap_servers, suppressions, VISITOR.encode(), b'{"at":1}')
    with RunningWeb({**topics.settings, "web.show_ids": show_ids}) as page:
        await page.until_read()
        explained = await asyncio.to_thread(page.get, f"/explain?{urlencode({'visitor': VISITOR})}")
        assert TOLD_OF_SUPPRESSED in explained.text
        other = await asyncio.to_thread(page.get, f"/explain?{urlencode({'visitor': OTHER})}")
        assert TOLD_OF_SUPPRESSED not in other.text
        assert "Kafka has no event of this visitor" in other.text
