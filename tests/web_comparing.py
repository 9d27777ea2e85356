"""Compares the numbers of `flagpost web` with those of `flagpost reconcile`.

In: a running page, a scene. Out: the page's tables as numbers; a failure if they differ from reconcile's.
"""

from __future__ import annotations

import asyncio

from deadlines import stretched
from scenes import Scene
from web_running import RunningWeb

COUNTS = (
    "published", "delivered", "duplicate", "dropped", "dead_lettered", "replayed", "sent_again", "pending",
    "unexplained",
)  # fmt: skip


def numbers(row: dict[str, str]) -> dict[str, int]:
    return {name: int(text) for name, text in row.items() if text.isdecimal()}


def rows_of(page: RunningWeb, name: str, key: str, **query: str) -> dict[str, dict[str, int]]:
    """A table's numbers, by the column `key`."""
    return {row[key]: numbers(row) for row in page.table(name, **query)}


def shown_counts(row: dict[str, int]) -> dict[str, int]:
    return {name.lower().replace(" ", "_"): count for name, count in row.items()}


async def settled(page: RunningWeb, scene: Scene, seconds: float = 60.0) -> None:
    """Wait until the page shows nothing pending and as many published deliveries as reconcile."""
    await page.until_read(seconds)
    _, found = await asyncio.to_thread(scene.reconcile)
    published = found["totals"]["published"]
    async with asyncio.timeout(stretched(seconds)):
        while True:
            every = await asyncio.to_thread(rows_of, page, "deliveries", "Deliveries")
            (totals, _, metadata) = every.values()
            if totals["Published"] == published and not totals["Pending"] + metadata["Pending"]:
                return
            await asyncio.sleep(0.05)


def same_as_reconcile(page: RunningWeb, scene: Scene, *options: str) -> None:
    """Compare visitors, reasons and deliveries of every flag and variation, and all deliveries together."""
    _, found = scene.reconcile(*options)
    assert found["unexplained"] == 0
    flags = page.table("flags")
    assert len(flags) == len(found["rows"])
    for row in found["rows"]:
        flag, variation = row["flag_key"], row["variation_key"]
        shown = rows_of(page, "deliveries-of", "Variation", flag=flag)[variation]
        assert shown_counts(shown) == {name: row[name] for name in COUNTS}
        (visitors,) = [each for each in flags if (each["Flag"], each["Variation"]) == (flag, variation)]
        assert int(visitors["Decided"]) == row["visitors"]["decided"]
        assert int(visitors["Delivered"]) == row["visitors"]["delivered"]
        assert int(visitors["Lost"]) + int(visitors["Pending"]) == row["visitors"]["lost"]
        reasons = rows_of(page, "reasons", "Reason", flag=flag)
        by_reason = {reason: each[variation] for reason, each in reasons.items() if each.get(variation)}
        assert by_reason == row["visitors"]["by_reason"]
    whole = rows_of(page, "deliveries", "Deliveries")
    for shown, part in zip(whole.values(), ("totals", "other", "metadata"), strict=True):
        assert shown_counts(shown) == {name: found[part][name] for name in COUNTS}
