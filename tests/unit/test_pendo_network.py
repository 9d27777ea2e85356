"""Proxies and certificates on the way to Pendo and to the registry, with a real proxy, a real CA and TLS servers.

Before the fix, a proxy of the environment was not used, so nothing was ever delivered behind one; and only the
system's certificates were trusted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from certificates import Authority
from deadlines import stretched
from flagpost_consumer.adapters.registry.errors import RegistryNotAnswering
from flagpost_consumer.adapters.registry.schema_registry import SchemaRegistry
from flagpost_consumer.commands.check.pendo import check_pendo
from flagpost_consumer.commands.check.results import Status
from flagpost_consumer.commands.reconcile.pendo_counts import PendoNotCounting, count_decisions, days_of
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from flagpost_consumer.settings import SchemaRegistrySettings, Settings
from flagpost_publisher.errors import RegistryTrouble
from flagpost_publisher.registry import USER_INFO_PROPERTY, Registry
from flagpost_settings.outbound import Outbound
from http_proxy import HttpProxy, http_proxy
from newest_sample import sample_read
from pendo_client import answering_server, client, read_request, track_attempt
from running import eventually

PENDO = "pendo.test"
UNSENT = Answer(failure=Failure.UNREACHABLE)
PASSWORD = "p@ss:word"
LOGIN = "flag%70ost:p%40ss%3Aword@"
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def pendo_behind_a_proxy(
    authority: Authority, credentials: str | None = None
) -> AsyncIterator[tuple[HttpProxy, list[bytes]]]:
    """Start Pendo with TLS, under a name that only the proxy knows."""
    async with (
        answering_server(authority.server_context(PENDO)) as (port, heads),
        http_proxy({PENDO: port}, credentials) as proxy,
    ):
        yield proxy, heads


async def answer_through(url: str, outbound: Outbound, times: int = 1) -> list[Answer]:
    async with client(url, outbound=outbound) as (http, answers):
        found = []
        for _ in range(times):
            http.start(track_attempt())
            answer = await asyncio.wait_for(answers.get(), stretched(60))
            found.append(answer._replace(detail=""))  # test_tls_failures.py tests the detail
        return found


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
async def test_the_environments_proxy_is_used(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Before the fix, the answer was always UNREACHABLE."""
    async with pendo_behind_a_proxy(authority) as (proxy, heads):
        monkeypatch.setenv(name, proxy.url)
        outbound = Outbound("pendo", ca_file=str(authority.file))
        assert await answer_through(f"https://{PENDO}", outbound, 3) == [Answer(200, body=b"{}")] * 3
        assert proxy.asked == [f"CONNECT {PENDO}:443 HTTP/1.1"], "one tunnel, used again"
    assert len(heads) == 3
    assert heads[0].startswith(b"POST /data/track HTTP/1.1\r\nHost: pendo.test\r\n")


async def test_no_proxy_is_obeyed(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pendo_behind_a_proxy(authority) as (proxy, heads):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "example.com, .test")
        outbound = Outbound("pendo", ca_file=str(authority.file))
        assert await answer_through(f"https://{PENDO}", outbound) == [UNSENT], "the name is the proxy's alone"
        assert proxy.asked == []
    assert heads == []


async def test_the_setting_wins_over_the_environment(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pendo_behind_a_proxy(authority) as (proxy, _), http_proxy({}) as other:
        monkeypatch.setenv("HTTPS_PROXY", other.url)
        monkeypatch.setenv("NO_PROXY", "*")
        outbound = Outbound("pendo", proxy.url, str(authority.file))
        assert await answer_through(f"https://{PENDO}", outbound) == [Answer(200, body=b"{}")]
        monkeypatch.setenv("NO_PROXY", "")
        assert await answer_through(f"https://{PENDO}", replace(outbound, proxy="none")) == [UNSENT]
        assert other.asked == []


async def test_a_proxy_with_a_password(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async with pendo_behind_a_proxy(authority, f"flagpost:{PASSWORD}") as (proxy, heads):
        url = f"http://{LOGIN}127.0.0.1:{proxy.port}"
        outbound = Outbound("pendo", url, str(authority.file))
        assert await answer_through(f"https://{PENDO}", outbound, 3) == [Answer(200, body=b"{}")] * 3
        assert len(proxy.asked) == 1, "one tunnel, used again"
        assert b"authorization" not in heads[0].lower(), "the proxy's password is not Pendo's to see"
        wrong = replace(outbound, proxy=url.replace("word", "wurd"))
        assert await answer_through(f"https://{PENDO}", wrong) == [UNSENT]
    assert PASSWORD not in caplog.text
    assert PASSWORD not in repr(outbound)
    assert LOGIN not in repr(outbound)


@pytest.mark.parametrize("credentials", [None, f"flagpost:{PASSWORD}"])
async def test_plain_http_goes_through_a_proxy_as_a_whole_url(credentials: str | None) -> None:
    async with answering_server() as (port, heads), http_proxy({PENDO: port}, credentials) as proxy:
        login = "" if credentials is None else LOGIN
        outbound = Outbound("pendo", f"http://{login}127.0.0.1:{proxy.port}")
        assert await answer_through(f"http://{PENDO}", outbound) == [Answer(200, body=b"{}")]
        assert proxy.asked == [f"POST http://{PENDO}/data/track HTTP/1.1"]
    assert len(heads) == 1


async def test_a_proxy_that_refuses_has_shown_pendo_nothing() -> None:
    """A 407 is the proxy's answer and not Pendo's: no event may be dead-lettered because of it."""
    async with answering_server() as (port, heads), http_proxy({PENDO: port}, "a:b") as proxy:
        assert await answer_through(f"http://{PENDO}", Outbound("pendo", proxy.url)) == [UNSENT]
        assert await answer_through(f"https://{PENDO}", Outbound("pendo", proxy.url)) == [UNSENT]
    async with http_proxy({}) as proxy:
        assert await answer_through(f"https://{PENDO}", Outbound("pendo", proxy.url)) == [UNSENT]
    assert heads == []


async def test_only_certificates_of_the_ca_file_are_trusted(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "another CA")
    async with answering_server(authority.server_context("localhost")) as (port, heads):
        url = f"https://localhost:{port}"
        trusting = Outbound("pendo", ca_file=str(authority.file))
        assert await answer_through(url, trusting) == [Answer(200, body=b"{}")]
        for other in (Outbound("pendo"), Outbound("pendo", ca_file=str(stranger.file))):
            assert await answer_through(url, other) == [UNSENT]
    async with answering_server(authority.server_context("elsewhere.test")) as (port, others):
        assert await answer_through(f"https://localhost:{port}", trusting) == [UNSENT], "another name"
    assert len(heads) == 1
    assert others == []


def test_uvloop_uses_the_same_proxy_and_certificates(authority: Authority) -> None:
    """The service runs on uvloop, which has its own TLS, also in the tunnels of proxies."""

    async def histories() -> None:
        async with pendo_behind_a_proxy(authority, f"flagpost:{PASSWORD}") as (proxy, heads):
            outbound = Outbound("pendo", f"http://{LOGIN}127.0.0.1:{proxy.port}", str(authority.file))
            assert await answer_through(f"https://{PENDO}", outbound, 3) == [Answer(200, body=b"{}")] * 3
            assert len(proxy.asked) == 1
        assert len(heads) == 3
        async with answering_server(authority.server_context("localhost")) as (port, heads):
            url = f"https://localhost:{port}"
            trusting = Outbound("pendo", ca_file=str(authority.file))
            assert await answer_through(url, trusting, 2) == [Answer(200, body=b"{}")] * 2
            assert await answer_through(url, Outbound("pendo")) == [UNSENT]
        assert len(heads) == 2

    uvloop.run(histories())


def pendo_settings(**pendo: object) -> Settings:
    own = {"track_secret": "s", "integration_key": "k", "track_url": f"https://{PENDO}/data/track"}
    return Settings.model_validate({"pendo": {**own, "api_url": f"https://{PENDO}", **pendo}})


async def test_check_and_reconcile_use_the_proxy_too(authority: Authority) -> None:
    body = b'{"valid":true,"writeAccess":true,"results":[]}'
    async with (
        answering_server(authority.server_context(PENDO), body) as (port, _),
        http_proxy({PENDO: port}) as proxy,
    ):
        settings = pendo_settings(proxy=proxy.url, ca_file=str(authority.file))
        checks = {check.name: check for check in await check_pendo(settings, sample_read())}
        assert checks["pendo track endpoint"].status is Status.OK
        assert checks["pendo integration key"].status is Status.OK
        assert await count_decisions(settings.pendo, "Experiment Viewed", days_of(0, 1)) == {}
        direct = pendo_settings(proxy="none", ca_file=str(authority.file))
        failed = {check.name: check for check in await check_pendo(direct, sample_read())}
        assert failed["pendo track endpoint"].status is Status.FAIL
        assert "pendo.proxy" in failed["pendo integration key"].fix
        with pytest.raises(PendoNotCounting, match=r"pendo\.proxy"):
            await count_decisions(direct.pendo, "Experiment Viewed", days_of(0, 1))


async def test_check_does_not_show_the_proxys_password(authority: Authority) -> None:
    async with http_proxy({}, "other:login") as proxy:
        settings = pendo_settings(proxy=f"http://{LOGIN}127.0.0.1:{proxy.port}", ca_file=str(authority.file))
        told = "".join(f"{check.detail}{check.fix}" for check in await check_pendo(settings, sample_read()))
    assert "407" in told
    assert PASSWORD not in told
    assert LOGIN not in told


# The schema registry, asked by the consumer and by publishers

SCHEMA = b'{"schema":"\\"string\\"","id":7}'


async def consumers(url: str, registry: dict[str, object]) -> None:
    settings = SchemaRegistrySettings.model_validate({"url": url, **registry})
    async with SchemaRegistry(url, settings) as client_of_registry:
        assert [await client_of_registry.fetch(7) for _ in range(4)] == ['"string"'] * 4


async def publishers(url: str, registry: dict[str, object]) -> None:
    outbound = SchemaRegistrySettings.model_validate({"url": url, **registry}).outbound
    login = (
        {USER_INFO_PROPERTY: f"{registry['username']}:{registry['password']}"}
        if "username" in registry
        else {}
    )
    ids = await asyncio.to_thread(Registry(url, login, outbound).ids_for, "events")
    assert set(ids.values()) == {7}


ASKING = pytest.mark.parametrize("ask", [consumers, publishers])
NOT_REACHED = (RegistryNotAnswering, RegistryTrouble)


@ASKING
async def test_the_registry_behind_a_proxy(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str, dict[str, Any]], Any]
) -> None:
    async with (
        answering_server(authority.server_context("registry.test"), SCHEMA) as (port, heads),
        http_proxy({"registry.test": port}, f"flagpost:{PASSWORD}") as proxy,
    ):
        own = {"ca_file": str(authority.file)}
        url = f"http://{LOGIN}127.0.0.1:{proxy.port}"
        await ask("https://registry.test", {**own, "proxy": url})
        monkeypatch.setenv("HTTPS_PROXY", url)
        await ask("https://registry.test", own)
        with pytest.raises(NOT_REACHED):
            await ask("https://registry.test", {**own, "proxy": "none"})
        assert {line.rpartition(" ")[0] for line in proxy.asked} == {"CONNECT registry.test:443"}
    assert all(b"proxy-authorization" not in head.lower() for head in heads)


@ASKING
async def test_the_registry_over_plain_http_behind_a_proxy(ask: Callable[[str, dict[str, Any]], Any]) -> None:
    async with answering_server(None, SCHEMA) as (port, _), http_proxy({"registry.test": port}) as proxy:
        await ask("http://registry.test", {"proxy": proxy.url})
        assert " http://registry.test/" in proxy.asked[0]


@ASKING
async def test_the_registry_asks_for_our_certificate(
    authority: Authority, ask: Callable[[str, dict[str, Any]], Any]
) -> None:
    ours = authority.vouch_for("flagpost.test")
    both = authority.vouch_for("both.test")
    both.certificate.write_bytes(both.certificate.read_bytes() + both.key.read_bytes())
    context = authority.server_context("localhost", asks_clients=True)
    async with answering_server(context, SCHEMA) as (port, _):
        url = f"https://localhost:{port}"
        own = {"ca_file": str(authority.file)}
        await ask(url, {**own, "certificate_file": str(ours.certificate), "key_file": str(ours.key)})
        await ask(url, {**own, "certificate_file": str(both.certificate)})
        with pytest.raises(NOT_REACHED):
            await ask(url, own)


LOGGED_IN = {"username": "flagpost", "password": "registry-password"}


@ASKING
async def test_a_redirect_of_the_registry_is_not_followed_and_no_login_goes_elsewhere(
    ask: Callable[[str, dict[str, Any]], Any],
) -> None:
    """Before the fix, the publisher's client followed any redirect and sent the password along."""
    logins: list[bytes] = []
    async with answering_server(None, SCHEMA) as (port, heads):

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            logins.append(await read_request(reader))
            where = f"http://127.0.0.1:{port}/"
            writer.write(f"HTTP/1.1 302 There\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()

        server = await asyncio.start_server(redirect, "127.0.0.1", 0)
        with pytest.raises(NOT_REACHED):
            await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", LOGGED_IN)
        server.close()
    assert heads == []
    assert b"authorization: basic " in logins[0].lower()


@ASKING
@pytest.mark.parametrize("over_tls", [True, False])
async def test_the_registry_is_asked_over_one_connection(
    authority: Authority, ask: Callable[[str, dict[str, Any]], Any], *, over_tls: bool
) -> None:
    """Before the fix, each request opened its own connection, with a handshake."""
    connections: list[asyncio.StreamWriter] = []
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                heads.append(await read_request(reader))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(SCHEMA), SCHEMA))
        writer.close()

    context = authority.server_context("localhost") if over_tls else None
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    scheme = "https" if over_tls else "http"
    url = f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}"
    await ask(url, {**LOGGED_IN, "ca_file": str(authority.file)})
    await eventually(lambda: all(writer.is_closing() for writer in connections))
    server.close()
    assert len(connections) == 1
    assert len(heads) == 4
    assert all(b"authorization: basic " in head.lower() for head in heads)


async def test_certificates_that_are_replaced_are_used_for_the_next_request(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "another CA")
    file = tmp_path / "ca.pem"
    file.write_bytes(stranger.file.read_bytes())
    async with answering_server(authority.server_context("localhost"), SCHEMA) as (port, _):
        settings = SchemaRegistrySettings(url=f"https://localhost:{port}", ca_file=str(file))
        async with SchemaRegistry(str(settings.url), settings) as registry:
            with pytest.raises(RegistryNotAnswering, match="untrusted"):
                await registry.fetch(7)
            file.write_bytes(authority.file.read_bytes())
            assert await registry.fetch(7) == '"string"'
