"""`flagpost web` in a real browser, over a real Kafka and what the real consumer did."""

from __future__ import annotations

import time

import pytest

from devtools import tab
from scenes import Scene
from simulation import decision
from web_running import RunningWeb

pytestmark = pytest.mark.kafka


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_what_was_published_is_on_the_page(scene: Scene) -> None:
    scene.publish(
        [decision(f"v{n}", "checkout", ("a", "b")[n % 2], occurred_at=wall_ms()) for n in range(10)]
    )
    with scene.consume() as consumer:
        await consumer.caught_up(scene.partitions)
        with RunningWeb({**scene.settings, "web.consumers": [consumer.admin_url]}) as page:
            await page.until_read()
            async with tab() as browser:
                await browser.open(page.url)
                assert await browser.look("document.querySelector('h1').textContent") == "Flags"
                text = await browser.look("document.querySelector('main').innerText")
                assert text == 1
                assert "checkout" in text
                assert browser.complaints == []
            assert await page.stop() == 0
        assert await consumer.stop() == 0
