"""`flagpost web` behind the real oauth2-proxy, with the options that docs/web.md shows, and an issuer of our own.

`make login-test` runs this file. `make test` does not collect it (its name does not begin with test_), because Go
builds oauth2-proxy first, which takes minutes.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest

from deadlines import stretched
from engine_world import decision
from login import oauth2_proxy
from login.oidc_issuer import OidcIssuer
from scenes import Scene
from web_running import RunningWeb

pytestmark = pytest.mark.timeout(2 * oauth2_proxy.BUILD_SECONDS)

HOST = "flags.example.com"
SOMEBODY = "somebody@example.com"
UPSTREAM_SECONDS = 2
"""How long the proxy waits for an answer to begin; the live part lasts longer."""


class Browser:
    """A user's browser: keeps cookies, follows redirects, and opens the page as https://flags.example.com."""

    def __init__(self, session: aiohttp.ClientSession, proxy: str) -> None:
        self._session = session
        self._proxy = proxy
        self._cookies: dict[str, str] = {}

    async def get(self, url: str, method: str = "GET") -> aiohttp.ClientResponse:
        """Send a request and follow redirects; returns the answer. The proxy gets HTTP, as TLS ends before it."""
        while True:
            answer = await self._ask(url, method)
            if answer.status not in (302, 303):
                return answer
            url = urljoin(url, answer.headers["location"])
            answer.release()

    async def _ask(self, url: str, method: str) -> aiohttp.ClientResponse:
        parts = urlsplit(url)
        if parts.hostname != HOST:
            return await self._session.request(method, url, allow_redirects=False)
        headers = {
            "host": HOST,
            "x-forwarded-proto": "https",
            "x-forwarded-host": HOST,
            "accept": "text/html",
            "cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
        }
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        answer = await self._session.request(
            method, f"http://{self._proxy}{path}", headers=headers, allow_redirects=False
        )
        for line in answer.headers.getall("set-cookie", []):
            self._cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        return answer


@pytest.fixture(scope="session", autouse=True)
def program() -> Path:
    return oauth2_proxy.built()


@pytest.fixture
async def page(scene: Scene) -> AsyncIterator[RunningWeb]:
    scene.publish([decision("v1", "checkout", "on", occurred_at=time.time_ns() // 1_000_000)])
    with RunningWeb({**scene.settings, "web.hosts": [HOST]}) as page:
        await page.until_read()
        yield page
        assert await page.stop() == 0


async def behind(page: RunningWeb, directory: Path, issuer: OidcIssuer) -> tuple[list[str], str]:
    """oauth2-proxy's options, and the address where it will listen."""
    client, cookie = directory / "client-secret", directory / "cookie-secret"
    client.write_text(issuer.client_secret)
    cookie.write_text(secrets.token_hex(16))
    address = oauth2_proxy.free_address()
    options = oauth2_proxy.documented(
        oidc_issuer_url=issuer.url,
        client_secret_file=str(client),
        cookie_secret_file=str(cookie),
        http_address=address,
        upstream=f"{page.url}/",
        upstream_timeout=f"{UPSTREAM_SECONDS}s",
    )
    return options, address


async def test_the_page_is_hidden_before_the_login_and_complete_after_it(
    page: RunningWeb, scene: Scene, tmp_path: Path
) -> None:
    async with OidcIssuer(SOMEBODY) as issuer, aiohttp.ClientSession() as session:
        options, address = await behind(page, tmp_path, issuer)
        async with oauth2_proxy.running(options, address):
            browser = Browser(session, address)
            before = await browser.get(f"https://{HOST}/")
            assert before.status == 403  # a page with a button to log in
            assert "checkout" not in await before.text()

            home = await browser.get(f"https://{HOST}/oauth2/start?rd=/")
            assert (home.status, "checkout" in await home.text()) == (200, True)
            table = await browser.get(f"https://{HOST}/csv/flags")
            assert (table.status, "checkout" in await table.text()) == (200, True)
            script = await browser.get(f"https://{HOST}/static/live.js")
            assert (script.status, script.content_type) == (200, "text/javascript")
            assert (await browser.get(f"https://{HOST}/", method="POST")).status == 405
            await live_part_comes_through(browser, scene)


async def live_part_comes_through(browser: Browser, scene: Scene) -> None:
    """Check that the proxy passes on each piece at once, also after the stream has lasted longer than
    UPSTREAM_SECONDS.
    """
    stream = await browser.get(f"https://{HOST}/live")
    assert (stream.status, stream.content_type) == (200, "text/event-stream")
    assert await asyncio.wait_for(stream.content.readline(), stretched(30))
    began = time.monotonic()
    number = 0
    while time.monotonic() < began + 2 * UPSTREAM_SECONDS:
        number += 1
        await asyncio.to_thread(scene.publish, [decision(f"live-{number}", "checkout", "on")])
        assert await asyncio.wait_for(stream.content.readline(), stretched(30))
    stream.close()


async def test_somebody_of_another_domain_is_refused(page: RunningWeb, tmp_path: Path) -> None:
    async with OidcIssuer("somebody@elsewhere.example") as issuer, aiohttp.ClientSession() as session:
        options, address = await behind(page, tmp_path, issuer)
        async with oauth2_proxy.running(options, address):
            refused = await Browser(session, address).get(f"https://{HOST}/oauth2/start?rd=/")
            assert refused.status == 403
            assert "checkout" not in await refused.text()
