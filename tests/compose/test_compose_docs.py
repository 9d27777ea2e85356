"""What docs/compose.md tells people to send is understood by what they send it to."""

from __future__ import annotations

import re

import aiohttp
from click.testing import CliRunner

from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from image.local_images import ROOT

PAGE = (ROOT / "docs" / "compose.md").read_text()


async def test_the_stand_in_does_what_the_page_tells_it() -> None:
    orders = re.findall(r"^curl localhost:8000(/_stand_in/\w+) --json '(.+)'$", PAGE, re.MULTILINE)
    assert len(orders) == 6
    async with PendoStandIn() as pendo, aiohttp.ClientSession() as session:
        before = pendo.keys
        for path, body in orders:
            async with session.post(pendo.url + path, data=body) as answer:
                assert answer.status == 200, (path, body, await answer.text())
        assert pendo.keys == before


def test_the_event_of_ones_own_is_one_that_is_sent() -> None:
    (event,) = re.findall(r"--json \\\n *'(.+?)'", PAGE, re.DOTALL)
    previewed = CliRunner().invoke(flagpost, ["preview", "-"], input=event)
    assert previewed.exit_code == 0, previewed.output
    assert "dark_mode" in previewed.output
