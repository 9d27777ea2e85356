"""Who is answered by the page's port: nobody is, who should not be, whatever is asked for.

In: a request's method and headers. Out: None, or why it is refused. Three things are looked at besides the token.
The host: a page of somebody else may have its name lead to our address (DNS rebinding), and would then read what it
likes. Where the browser says that it comes from: no other site's page reads, frames or holds what is here. The
method: there is nothing to be changed.
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
    """Why nothing is answered."""

    status: int
    text: str
    """What is wrong, and what to do."""
    headers: Mapping[str, str] = field(default_factory=dict)


class Guard:
    """The rules of one port."""

    def __init__(self, hosts: Iterable[str], token: Callable[[], str] | None) -> None:
        """`hosts`: names besides localhost and addresses. `token` tells the token now; None: nobody is asked."""
        self._hosts = {"localhost", *(name.lower().rstrip(".") for name in hosts)}
        self._token = token

    def refusal(self, method: str, headers: Mapping[str, str], *, is_page: bool) -> Refusal | None:
        """Why a request is refused; `is_page`: whether people open it by a link from elsewhere."""
        if method not in METHODS:
            return Refusal(405, "Use GET: nothing can be changed here.", {"allow": ", ".join(METHODS)})
        host = headers.get("host", "")
        if not self._is_ours(host):
            name = _name_of(host)
            return Refusal(
                421,
                f"This page is not known as {name!r}. If that is its name, add it to the setting web.hosts.",
            )
        if not _comes_from_us(headers, host, is_page=is_page):
            return Refusal(403, "Another site's page asks for this; it is shown to this page only.")
        if self._token is not None and not _shows(headers.get("authorization", ""), self._token()):
            return Refusal(
                401,
                "The token is asked for: any user name, and as password what the setting web.token holds.",
                {"www-authenticate": ASK_FOR_TOKEN},
            )
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header is one of our names, or an address: a name that is rebound is neither."""
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
    """Browsers say it (Fetch Metadata; older ones by Origin); what says nothing is no browser's page."""
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
    """Whether it holds the token, as Basic's password or as Bearer; compared in constant time."""
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
