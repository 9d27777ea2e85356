"""The requests and the event that docs/compose.md shows work: the stand-in and `flagpost preview` accept them."""

from __future__ import annotations

import re

import aiohttp
from click.testing import CliRunner

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from image.local_images import ROOT

PAGE = (ROOT / "docs" / "compose.md").read_text()


async def test_the_stand_in_accepts_the_requests_on_the_page() -> None:
    orders = re.findall(r"^curl localhost:8000(/_stand_in/\w+) --json '(.+)'$", PAGE, re.MULTILINE)
    assert len(orders) == 6
    async with PendoStandIn() as pendo, aiohttp.ClientSession() as session:
        before = pendo.keys
        for path, body in orders:
            async with session.post(pendo.url + path, data=body) as answer:
                assert answer.status == 200, (path, body, await answer.text())
        assert pendo.keys == before


def test_the_example_event_on_the_page_would_be_sent() -> None:
    (event,) = re.findall(r"--json \\\n *'(.+?)'", PAGE, re.DOTALL)
    previewed = CliRunner().invoke(flagpost, ["preview", "-"], input=event)
    assert previewed.exit_code == 0, previewed.output
    assert "dark_mode" in previewed.output
