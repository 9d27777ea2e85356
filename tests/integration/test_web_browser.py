"""`flagpost web` in a real browser, with a real Kafka and a real consumer.

With WEB_PICTURES=DIRECTORY (`make pictures`) the pictures of docs/web.md are taken again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from accessibility import axe, findings
from devtools import Tab, tab
from engine_world import decision
from running import eventually
from scenes import Scene
from web_running import RunningWeb
from web_story import FLAG, SETTINGS, story, tell

pytestmark = [pytest.mark.kafka]

WIDTHS = (320, 768, 1280, 2560)
PICTURES = {("flags", 1280, "light"), ("flag", 1280, "dark")}
"""The pages of docs/web.md, with the width and the scheme in which they are shown there."""
SECONDS = 60.0


@dataclass(frozen=True)
class Opened:
    scene: Scene
    page: RunningWeb
    browser: Tab

    def paths(self) -> dict[str, str]:
        """The path of each kind of page, by name."""
        (first, *_) = self.page.table("dead-letters")
        lost, _ = next(iter(story().lost))
        return {
            "flags": "/",
            "flag": f"/flag?{urlencode({'key': FLAG})}",
            "dead-letters": "/dead-letters",
            "dead-letter": f"/dead-letter?{urlencode({'place': first['Place']})}",
            "explain": f"/explain?{urlencode({'visitor': lost})}",
            "nothing": "/no-such-page",
        }

    async def open(self, path: str) -> None:
        await self.browser.open(self.page.url + path)


@pytest.fixture
async def opened(scene: Scene) -> AsyncIterator[Opened]:
    tell(scene, story())
    with scene.consume(**SETTINGS) as consumer:
        await consumer.caught_up(scene.partitions)
        settings = {**scene.settings, "web.consumers": [consumer.admin_url]}
        with RunningWeb(settings) as page:
            await page.until_read()
            await eventually(lambda: page.table("pendo") and page.table("dead-letters"), SECONDS)
            async with tab() as browser:
                yield Opened(scene, page, browser)
            assert await page.stop() == 0
        assert await consumer.stop() == 0


async def test_axe_finds_nothing_at_any_width_in_light_and_dark(opened: Opened) -> None:
    text = await asyncio.to_thread(axe)
    browser = opened.browser
    for name, path in opened.paths().items():
        for scheme in ("light", "dark"):
            await browser.coloured(scheme)
            for width in WIDTHS:
                await browser.sized(width)
                await opened.open(path)
                assert await findings(browser, text) == [], (name, scheme, width)
                sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert await browser.look(sideways) == 0, (name, width)
                if (name, width, scheme) in PICTURES:
                    await picture(browser, f"web-{name}-{scheme}")
    assert [text for text in browser.complaints if "404" not in text] == []


async def picture(browser: Tab, name: str) -> None:
    directory = os.environ.get("WEB_PICTURES")
    if directory is not None:
        await browser.picture(Path(directory) / f"{name}.png")


async def test_the_live_part_is_updated_and_can_be_paused(opened: Opened) -> None:
    browser = opened.browser
    await opened.open("/")
    await browser.until("document.getElementById('live-status').textContent === 'live'")
    now = time.time_ns() // 1_000_000
    opened.scene.publish([decision("someone", "just-now", "on", occurred_at=now)])
    await eventually(lambda: any(row["Flag"] == "just-now" for row in opened.page.table("flags")), SECONDS)
    await browser.until("document.getElementById('live-rows').textContent.includes('just-now')")
    assert not await browser.look("document.body.textContent.includes('someone')")
    await browser.look("document.getElementById('live-pause').click()")
    await browser.until("document.getElementById('live-status').textContent === 'paused'")
    assert browser.complaints == []


async def test_without_scripts_everything_but_the_live_part_is_shown(opened: Opened) -> None:
    browser = opened.browser
    for path in opened.paths().values():
        await browser.scripts(on=True)
        await opened.open(path)
        with_scripts = await browser.look("document.querySelectorAll('main th, main td, main dd').length")
        await browser.scripts(on=False)
        await opened.open(path)
        without = await browser.look("document.querySelectorAll('main th, main td, main dd').length")
        assert without == with_scripts
    await opened.open("/")
    loaded = await browser.look("document.getElementById('live-status').textContent")
    assert loaded == "as it was when the page was loaded"
    assert await browser.look("document.getElementById('live-pause').hidden")


async def test_a_flag_can_be_opened_with_the_keyboard_alone(opened: Opened) -> None:
    browser = opened.browser
    await opened.open("/")
    await browser.press("Tab")
    assert await browser.look("document.activeElement.className") == "skip"
    await browser.press("Enter")
    assert await browser.look("document.activeElement.id") == "content"
    target = f"/flag?{urlencode({'key': FLAG})}"
    for _ in range(12):
        await browser.press("Tab")
        if await browser.look("document.activeElement.getAttribute('href')") == target:
            break
    await browser.press("Enter")
    await browser.until(f"document.querySelector('h1')?.textContent === 'Flag {FLAG}'")


async def test_hostile_names_are_shown_as_plain_text(opened: Opened) -> None:
    browser = opened.browser
    hostile = "<img src=x onerror=document.title='owned'>\u202e\"'&"
    now = time.time_ns() // 1_000_000
    opened.scene.publish([decision("v", hostile, "<script>", occurred_at=now)])
    await eventually(lambda: len({row["Flag"] for row in opened.page.table("flags")}) == 3, SECONDS)
    await opened.open("/")
    await browser.until("document.getElementById('live-status').textContent === 'live'")
    await browser.until("document.getElementById('live-rows').textContent.includes('<script>')")
    assert await browser.look("document.querySelectorAll('main img, main script').length") == 0
    assert await browser.look("document.body.textContent.includes('\\\\u202e')")
    link = "[...document.querySelectorAll('main table a')].find(a => a.textContent.startsWith('<img'))"
    await browser.click(link)
    await browser.until("document.querySelector('h1')?.textContent.startsWith('Flag <img')")
    assert await browser.look("document.title.startsWith('Flag <img')")
    assert browser.complaints == []
