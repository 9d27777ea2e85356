"""Which requests the page's port answers."""

from __future__ import annotations

from base64 import b64encode

import pytest

from flagpost_consumer.web.guard import Guard

TOKEN = "a-token-of-sixteen-or-more"
OPEN = Guard(["flags.example"], None)
CLOSED = Guard([], lambda: TOKEN)


def status(guard: Guard, method: str = "GET", kind: str = "page", **headers: str) -> int:
    given = {"host": "localhost:8084", **{name.replace("_", "-"): text for name, text in headers.items()}}
    found = guard.refusal(method, given, is_page=kind == "page")
    return 200 if found is None else found.status


def basic(password: str) -> str:
    return "Basic " + b64encode(f"anybody:{password}".encode()).decode()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"])
def test_only_methods_that_read_are_allowed(method: str) -> None:
    assert status(OPEN, method) == 405


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:8084", "[::1]:8084", "10.1.2.3", "flags.example"],
)
def test_our_own_names_and_addresses_are_answered(host: str) -> None:
    assert status(OPEN, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "flags.example.evil.example",
        "127.0.0.1.evil.example",
        "[evil]",
    ],
)
def test_a_foreign_name_that_was_bound_to_our_address_is_refused(host: str) -> None:
    assert status(OPEN, host=host) == 421


def test_another_sites_page_may_link_to_a_page_and_do_nothing_else() -> None:
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert status(OPEN, **link) == 200
    assert status(OPEN, kind="data", **link) == 403
    for site in ("cross-site", "same-site"):
        assert status(OPEN, sec_fetch_site=site, sec_fetch_mode="cors", sec_fetch_dest="empty") == 403
        frame = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}
        assert status(OPEN, sec_fetch_site=site, **frame) == 403


def test_a_foreign_origin_is_refused_also_from_an_old_browser() -> None:
    assert status(OPEN, kind="data", origin="http://localhost:8084") == 200
    assert status(OPEN, kind="data", origin="http://localhost:9999") == 403
    assert status(OPEN, kind="data", origin="null") == 403


@pytest.mark.parametrize("shown", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_the_token_is_accepted_as_basic_and_as_bearer(shown: str) -> None:
    assert status(CLOSED, authorization=shown) == 200


@pytest.mark.parametrize(
    "shown",
    ["", "Bearer", "Bearer x", f"Digest {TOKEN}", basic(TOKEN + "x"), basic(""), "Basic !!!", "Basic gICA",
     f"Bearer {TOKEN}\udcff"],
)  # fmt: skip
def test_everything_but_the_token_is_refused(shown: str) -> None:
    found = CLOSED.refusal("GET", {"host": "localhost", "authorization": shown}, is_page=True)
    assert found is not None
    assert found.status == 401
    assert found.headers["www-authenticate"].startswith("Basic ")
    assert TOKEN not in found.text


def test_only_the_current_token_is_accepted() -> None:
    tokens = ["the-first-of-two-tokens"]
    guard = Guard([], lambda: tokens[-1])
    assert status(guard, authorization=f"Bearer {tokens[0]}") == 200
    tokens.append("the-second-of-two-tokens")
    assert status(guard, authorization=f"Bearer {tokens[0]}") == 401
    assert status(guard, authorization=f"Bearer {tokens[1]}") == 200
