"""Who sends, according to the request's write key, and whether it may send now.

In: a request's headers and address (and for libraries that put the key there, its document). Out: the `Key`, or a
Refusal: 401 without a known key, 403 for a public key in a page from another origin, 429 above a rate.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

import structlog

from flagpost_publisher.gateway.key import Key
from flagpost_publisher.gateway.key_ring import KeyRing
from flagpost_publisher.gateway.rates import Rates
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_settings.logs import Lately

log = structlog.get_logger(__name__)

MAX_TRACES: Final = 8
"""With more `writeKey` members than this, a body counts as a stranger's."""
_TRACE: Final = re.compile(rb'"writeKey"\s{0,64}:\s{0,64}("(?:[^"\\]|\\.){1,1024}")')


class WriteKeys:
    """Checks keys."""

    def __init__(self, ring: KeyRing, rates: Rates, count_limited: Callable[[Key], None]) -> None:
        """`count_limited` is called for each request that is refused for its key's rate."""
        self._ring = ring
        self._rates = rates
        self._count_limited = count_limited
        self._lately = Lately()

    def require(self, headers: Mapping[str, str], address: str) -> Key:
        """The key of the authorization header."""
        return self._require(_key_in(headers.get("authorization", "")), headers, address)

    def require_if_given(self, headers: Mapping[str, str], address: str) -> Key | None:
        """Like `require`; None without that header: then `require_in` looks further."""
        return self.require(headers, address) if "authorization" in headers else None

    def require_trace_in(self, body: bytes) -> None:
        """Allow a body to be parsed only if it contains a known key as some `writeKey`: parsing costs a hundred times
        as much.
        """
        for found in islice(_TRACE.finditer(body), MAX_TRACES):
            if self._ring.find(_text_of(found[1])) is not None:
                return
        raise _unknown()

    def require_in(self, document: object, headers: Mapping[str, str], address: str) -> Key:
        """The key in the document's `writeKey`."""
        key = document.get("writeKey") if isinstance(document, dict) else None
        return self._require(key if isinstance(key, str) else "", headers, address)

    def count(self, key: Key, address: str, events: int) -> None:
        """Count this many events that are about to be published. Raises Refusal (429) if others came meanwhile."""
        self._limited(key, lambda: self._rates.count(key, address, events))

    def _require(self, text: str, headers: Mapping[str, str], address: str) -> Key:
        key = self._ring.find(text)
        if key is None:
            raise _unknown()
        origin = headers.get("origin")
        if key.is_public and origin is not None and origin.lower() not in key.origins:
            raise Refusal(
                403,
                "this key does not allow pages of that origin",
                fix="add the page's origin, such as https://www.example.com, to the key's origins; see gateway.keys",
            )
        self._limited(key, lambda: self._rates.check(key, address))
        return key

    def _limited(self, key: Key, check: Callable[[], None]) -> None:
        try:
            check()
        except Refusal:
            self._count_limited(key)
            if self._lately.is_news(key.name):
                log.warning("a key sends more than its rate allows, and is answered 429", key=key.name)
            raise


def _unknown() -> Refusal:
    return Refusal(
        401,
        "the request has no write key that the gateway knows",
        fix="send authorization: Bearer KEY, or Basic with the key as user name; see gateway.write_keys",
        headers={"www-authenticate": 'Bearer realm="flagpost", Basic realm="flagpost"'},
    )


def _text_of(literal: bytes) -> str:
    """A JSON string's text; empty if it is not one."""
    try:
        return str(json.loads(literal))
    except ValueError:
        return ""


def _key_in(authorization: str) -> str:
    """The key, or an empty text if there is none."""
    scheme, _, credentials = authorization.strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip()
        case "basic":
            return _user_name(credentials.strip())
    return ""


def _user_name(credentials: str) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        return ""
