"""Decides whether the page's port answers a request, whatever it asks for.

In: a request's method and headers. Out: None, or why it is refused. Besides the token, three things are checked. The
host: another page may have its name resolve to our address (DNS rebinding), and could then read everything. The
origin according to the browser: no other site's page may read, frame or keep anything from here. The method: there is
nothing to change.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

METHODS: Final = ("GET", "HEAD")
ASK_FOR_TOKEN: Final = 'Basic realm="Flagpost: any user name, and the token as password", charset="UTF-8"'  # noqa: S105 - it says what is asked for


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused."""

    status: int
    text: str
    """What is wrong, and what to do."""
    headers: Mapping[str, str] = field(default_factory=dict)


class Guard:
    """The rules of one port."""

    def __init__(self, hosts: Iterable[str], token: Callable[[], str] | None) -> None:
        """`hosts`: names besides localhost and addresses. `token` returns the present token; None: none is
        required.
        """
        self._hosts = {"localhost", *(name.lower().rstrip(".") for name in hosts)}
        self._token = token

    def refusal(self, method: str, headers: Mapping[str, str], *, is_page: bool) -> Refusal | None:
        """Why a request is refused, or None; `is_page`: whether people open it by a link from elsewhere."""
        if method not in METHODS:
            return Refusal(405, "Use GET: nothing can be changed here.", {"allow": ", ".join(METHODS)})
        host = headers.get("host", "")
        if not self._is_ours(host):
            name = _name_of(host)
            return Refusal(
                421,
                f"{name!r} is not a known name of this page. If it is one, add it to the setting web.hosts.",
            )
        if not _comes_from_us(headers, host, is_page=is_page):
            return Refusal(403, "The request comes from another site's page. Open this address directly.")
        if self._token is not None and not _shows(headers.get("authorization", ""), self._token()):
            return Refusal(
                401,
                "A token is required: enter any user name, and the value of the setting web.token as password.",
                {"www-authenticate": ASK_FOR_TOKEN},
            )
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header is one of our names, or an address: a rebound name is neither."""
        name = _name_of(host)
        return name in self._hosts or _is_address(name)


def _name_of(host: str) -> str:
    """The host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _comes_from_us(headers: Mapping[str, str], host: str, *, is_page: bool) -> bool:
    """Whether the request comes from our pages, according to Fetch Metadata or, in older browsers, Origin. A request
    without these is not from a browser's page.
    """
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none"):
        return (
            is_page
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == host.lower()


def _shows(authorization: str, token: str) -> bool:
    """Whether the header has the token, as Basic's password or as Bearer; compared in constant time."""
    scheme, _, credentials = authorization.partition(" ")
    given = ""
    if scheme.lower() == "bearer":
        given = credentials.strip()
    elif scheme.lower() == "basic":
        try:
            given = b64decode(credentials, validate=True).decode().partition(":")[2]
        except (NotBase64, ValueError):
            given = ""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())
