"""How TrackEvents are sent to Pendo: event and identity mapping, consent (docs/contract.md#requests-to-pendo)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from flagpost_consumer.demo.pendo_stand_in import Received
from flagpost_schemas import Context, Scalar, TrackEvent
from flagpost_schemas.flatten import flatten
from running import RunningConsumer, total
from scenes import Scene

NOW_MS = time.time_ns() // 1_000_000
CONTEXT = Context(
    ip="203.0.113.7", user_agent="Mozilla/5.0", url="https://shop.test/c", title="Cart", locale="fr-CH"
)


def track(number: int, event: str, properties: dict[str, Scalar] | None = None, **fields: Any) -> TrackEvent:
    """An event of a visitor of its own, `v<number>`, unless said otherwise."""
    own = {"visitor_id": f"v{number}", **fields}
    return TrackEvent(
        event_id=f"e{number}", occurred_at=NOW_MS, event=event, properties=properties or {}, **own
    )


def sent(visitor: str, event: str, properties: str, context: str = "{}", account: str = "") -> str:
    """The body of a track request, to the byte."""
    account_id = f'"accountId":"{account}",' if account else ""
    return (
        f'{{"type":"track","event":"{event}","visitorId":"{visitor}",{account_id}"timestamp":{NOW_MS},'
        f'"properties":{properties},"context":{context}}}'
    )


async def bodies(scene: Scene, count: int, **settings: object) -> tuple[dict[str, str], dict[str, float]]:
    """Deliver the events on the topic; returns the bodies by visitor, and the counts of deliveries by reason."""
    with scene.consume(**settings) as consumer:
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() == count, 30)
        await consumer.caught_up(scene.partitions)
        reasons = reasons_of(consumer)
        assert await consumer.stop() == 0
    assert scene.pendo.received.violations == []
    tracks: list[Received] = [each for each in scene.pendo.received if each.visitor_id]
    return {str(each.visitor_id): each.body.decode() for each in tracks}, reasons


def reasons_of(consumer: RunningConsumer) -> dict[str, float]:
    series = consumer.scrape()
    names = {dict(labels)["reason"] for name, labels in series if name == "flagpost_deliveries_total"}
    counts = {name: total(series, "flagpost_deliveries_total", reason=name) for name in names}
    return {name: count for name, count in counts.items() if count}


async def test_each_kind_of_event_to_the_byte(scene: Scene) -> None:
    order = flatten(
        {"coupon": None, "total": 59.9, "order_id": "o-1", "products": [{"sku": "a"}, {"sku": "b"}]}
    )
    events = [
        track(1, "page", {"url": "https://shop.test/own", "path": "/own"}, context=CONTEXT),
        track(2, "page", {"referrer": "https://search.test/"}, context=CONTEXT, account_id="acme"),
        track(3, "Product Viewed", {"sku": "a", "price": 29.95, "in_stock": True, "note": None}),
        track(4, "Order Completed", order),
        track(5, "Order Completed", {"revenue": 10, "total": 12, "items": 3, "products_count": 2}),
        track(6, "Signed Up", {"plan": "pro"}, context=Context(ip="203.0.113.8")),
    ]
    await asyncio.to_thread(scene.publish, events)
    found, _ = await bodies(scene, len(events))
    context = '{"ip":"203.0.113.7","userAgent":"Mozilla/5.0","url":"https://shop.test/c","title":"Cart"}'
    assert found == {
        "v1": sent(
            "v1", "page_view", '{"url":"https://shop.test/own","title":"Cart","path":"/own"}', context
        ),
        "v2": sent(
            "v2",
            "page_view",
            '{"url":"https://shop.test/c","title":"Cart","referrer":"https://search.test/"}',
            context,
            account="acme",
        ),
        "v3": sent("v3", "product_viewed", '{"sku":"a","price":29.95,"in_stock":true}'),
        "v4": sent(
            "v4", "purchase", '{"revenue":59.9,"order_id":"o-1","items":2,"total":59.9,"products_count":2}'
        ),
        "v5": sent("v5", "purchase", '{"revenue":10,"items":3,"total":12,"products_count":2}'),
        "v6": sent("v6", "Signed Up", '{"plan":"pro"}', '{"ip":"203.0.113.8"}'),
    }


async def test_names_can_be_mapped_otherwise_and_identities_become_properties(scene: Scene) -> None:
    events = [
        track(1, "Signed Up", {"plan": "pro", "locale": "en"}, anonymous_id="a1", context=CONTEXT),
        track(2, "page", {"path": "/x"}, context=Context(locale="de")),
        track(3, "Opened", visitor_id=None, anonymous_id="a3"),
    ]
    await asyncio.to_thread(scene.publish, events)
    found, _ = await bodies(
        scene,
        len(events),
        mapping__events={"Signed Up": "signup"},
        mapping__identity_properties=["anonymous_id", "locale"],
        mapping__anonymous="as_visitor",
    )
    context = '{"ip":"203.0.113.7","userAgent":"Mozilla/5.0","url":"https://shop.test/c","title":"Cart"}'
    assert found == {
        "v1": sent("v1", "signup", '{"plan":"pro","locale":"en","anonymous_id":"a1"}', context),
        # The configured map replaces the default one, so page does not become page_view.
        "v2": sent("v2", "page", '{"path":"/x","locale":"de"}'),
        "a3": sent("a3", "Opened", '{"anonymous_id":"a3"}'),
    }


async def test_anonymous_visitors_are_sent_as_pendos_agent_names_them_and_erase_finds_both_names(
    scene: Scene,
) -> None:
    events = [
        track(1, "Opened", visitor_id=None, anonymous_id="a1"),
        track(2, "Opened", visitor_id=None, anonymous_id="_PENDO_T_a2"),
        track(3, "Opened", anonymous_id="a3"),
    ]
    await asyncio.to_thread(scene.publish, events)
    found, reasons = await bodies(scene, len(events), mapping__anonymous="as_anonymous")
    assert set(found) == {"_PENDO_T_a1", "_PENDO_T_a2", "v3"}
    assert scene.pendo.received.anonymous == 2
    assert reasons == {"ok": 3}

    for name in ("a1", "_PENDO_T_a1"):
        erased = await asyncio.to_thread(scene.flagpost, "erase", name, "--dry-run", "--json")
        held = {topic["topic"]: topic["entries"] for topic in orjson.loads(erased.stdout)["topics"]}
        assert (held[scene.topic], held[scene.ledger]) == (1, 1)


async def test_without_visitor_or_consent_nothing_is_sent_and_each_is_counted(scene: Scene) -> None:
    events = [
        track(1, "Opened", consent={"analytics": True, "marketing": False}),
        track(2, "Opened", consent={"analytics": False}),
        track(3, "Opened", consent={"marketing": True}),
        track(4, "Opened"),
        track(5, "Opened", visitor_id=None, anonymous_id="a5"),
        track(6, "Opened", visitor_id="", consent={"analytics": True}),
    ]
    await asyncio.to_thread(scene.publish, events)
    found, reasons = await bodies(scene, 1, consent__required=True)
    assert set(found) == {"v1"}
    assert reasons == {"ok": 1, "no_consent": 3, "no_visitor_id": 2}
