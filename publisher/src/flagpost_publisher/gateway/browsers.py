"""Which browser pages may send, according to CORS (https://fetch.spec.whatwg.org/#http-cors-protocol).

In: a request's headers. Out: the headers that allow a page from one of the origins in `gateway.keys` to send, and to
read the answer; none for any other page. Cookies are never allowed. Whether a key is used from its own origins is
checked where the key is known (`write_keys`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from flagpost_publisher.gateway.key import Key

REMEMBER_SECONDS: Final = 600
"""How long a browser may remember the permission."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Browsers:
    """The pages that may send."""

    def __init__(self, keys: Iterable[Key]) -> None:
        """Allow the origins of all `keys`."""
        self._origins = frozenset(origin for key in keys for origin in key.origins)

    def is_asked(self, method: str, headers: Mapping[str, str]) -> bool:
        """Whether this is a browser's preflight request."""
        return method == "OPTIONS" and "access-control-request-method" in headers and self._knows(headers)

    def answer_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers that allow the page to read the answer."""
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
        """The headers that allow the page to send; they list those of Segment's library."""
        return {
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": "authorization, content-type, x-retry-count",
            "access-control-max-age": str(REMEMBER_SECONDS),
        }

    def _knows(self, headers: Mapping[str, str]) -> bool:
        return headers.get("origin", "").lower() in self._origins
