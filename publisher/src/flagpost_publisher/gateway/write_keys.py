"""Write keys: who may publish.

In: a request's headers (and for libraries that put it there, its document). Out: nothing, or a Refusal (401). Every
key is compared in constant time, by its SHA-256, so that not even its length is told.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from flagpost_publisher.gateway.exchange import Shown
from flagpost_publisher.gateway.fresh_secrets import FreshSecret
from flagpost_publisher.gateway.refusals import Refusal


class WriteKeys:
    """The keys of `gateway.write_keys`, one a line, as they are now."""

    def __init__(self, secret: FreshSecret) -> None:
        """`secret` holds one key a line."""
        self._secret = secret
        self._read_from = ""
        self._digests: list[bytes] = []

    def require(self, headers: Mapping[str, str]) -> Shown:
        """Let a request pass whose authorization header holds a write key."""
        self._require(_key_in(headers.get("authorization", "")))
        return Shown.KEY

    def require_if_given(self, headers: Mapping[str, str]) -> Shown:
        """As `require`, but let a request without that header pass, for `require_somewhere` to look further."""
        return self.require(headers) if "authorization" in headers else Shown.NOTHING

    def require_somewhere(self, headers: Mapping[str, str], document: object) -> None:
        """As `require`, but without that header the key may be the document's `writeKey`."""
        if "authorization" in headers:
            return  # `require_if_given` has looked at it
        key = document.get("writeKey") if isinstance(document, dict) else None
        self._require(key if isinstance(key, str) else "")

    def _require(self, key: str) -> None:
        digest = _digest(key)
        # Counted, where any() would stop at the first: every key is compared, whichever fits.
        if sum(hmac.compare_digest(digest, known) for known in self._known()) == 0:
            raise Refusal(
                401,
                "the request carries no write key that is known here",
                fix="send authorization: Bearer KEY, or Basic with the key as user name; see gateway.write_keys",
                headers={"www-authenticate": 'Bearer realm="flagpost", Basic realm="flagpost"'},
            )

    def _known(self) -> list[bytes]:
        if self._secret.text != self._read_from:
            self._read_from = self._secret.text
            self._digests = [_digest(line) for line in self._read_from.splitlines() if line]
        return self._digests


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _key_in(authorization: str) -> str:
    """The key, or an empty text where there is none."""
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
