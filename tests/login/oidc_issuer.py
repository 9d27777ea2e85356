"""An OpenID Connect issuer on 127.0.0.1 that logs everybody in as the same person.

In: a person's e-mail address. Out: discovery, keys, authorization codes and signed tokens, as a login needs them.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

CLIENT = "flagpost"
LASTS_SECONDS = 300


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class OidcIssuer:
    """The issuer, as an async context manager; `url` is its address."""

    def __init__(self, email: str) -> None:
        self.email = email
        self.client_secret = secrets.token_hex(16)
        self.url = ""
        self._key = generate_private_key(65_537, 2_048)
        self._nonces: dict[str, str | None] = {}
        """The nonce of the login, by the authorization code that was issued."""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/keys", self._keys),
                web.get("/authorize", self._authorize),
                web.post("/token", self._token),
            ]
        )
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _discovery(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _keys(self, _: web.Request) -> web.Response:
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1"}
        return web.json_response({"keys": [{**key, "n": _number(numbers.n), "e": _number(numbers.e)}]})

    async def _authorize(self, request: web.Request) -> web.Response:
        """Redirect back with a code at once: everybody counts as logged in."""
        asked = request.query
        assert asked["client_id"] == CLIENT
        code = secrets.token_urlsafe()
        self._nonces[code] = asked.get("nonce")
        raise web.HTTPFound(f"{asked['redirect_uri']}?code={code}&state={asked['state']}")

    async def _token(self, request: web.Request) -> web.Response:
        given = await request.post()
        nonce = self._nonces.pop(str(given["code"]))
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "1",
            "aud": CLIENT,
            "iat": now,
            "exp": now + LASTS_SECONDS,
            "email": self.email,
            "email_verified": True,
            "nonce": nonce,
        }
        return web.json_response(
            {
                "access_token": secrets.token_urlsafe(),
                "token_type": "Bearer",
                "expires_in": LASTS_SECONDS,
                "id_token": self._signed(claims),
            }
        )

    def _signed(self, claims: dict[str, Any]) -> str:
        parts = {"alg": "RS256", "kid": "1"}, claims
        text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_base64(self._key.sign(text.encode(), PKCS1v15(), SHA256()))}"
