"""Browsers: which pages may send, as CORS has it (https://fetch.spec.whatwg.org/#http-cors-protocol).

In: a request's headers. Out: the headers that let a page of one of the origins of `gateway.keys` send, and read the
answer; none for every other. Cookies are never let in. That a key is used by a page of its own origins is looked at
where the key is known (`write_keys`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from flagpost_publisher.gateway.key import Key

REMEMBER_SECONDS: Final = 600
"""How long a browser need not ask again."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Browsers:
    """The pages that may send."""

    def __init__(self, keys: Iterable[Key]) -> None:
        """Those of the origins of all `keys`."""
        self._origins = frozenset(origin for key in keys for origin in key.origins)

    def is_asked(self, method: str, headers: Mapping[str, str]) -> bool:
        """Whether a browser asks, before it sends a request, if a page that may send may do so."""
        return method == "OPTIONS" and "access-control-request-method" in headers and self._knows(headers)

    def answer_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """What lets the page read the answer."""
        if not self._origins:
            return _NOTHING
        if not self._knows(headers):
            return {"vary": "origin"}
        return {
            "access-control-allow-origin": headers["origin"],
            "access-control-expose-headers": "retry-after",
            "vary": "origin",
        }

    def asked_headers(self) -> Mapping[str, str]:
        """What lets the page send: the headers are those of Segment's library."""
        return {
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": "authorization, content-type, x-retry-count",
            "access-control-max-age": str(REMEMBER_SECONDS),
        }

    def _knows(self, headers: Mapping[str, str]) -> bool:
        return headers.get("origin", "").lower() in self._origins
