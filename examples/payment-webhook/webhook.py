"""A payment provider's webhook that becomes account metadata in Pendo, through Flagpost's gateway.

In: POST /payments with the provider's notification, signed as Stripe signs (https://docs.stripe.com/webhooks).
Out: an `account` event at the gateway for each change of a subscription. The provider is answered 200 only once Kafka
has the event; until then it retries, with the same id, so nothing is lost and nothing is told twice.
"""

import hmac
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, web

TOLERANCE_SECONDS = 300
"""Older notifications are refused, so that nobody can send again what was overheard."""
GATEWAY_SECONDS = 15.0
"""Less than the provider waits for its answer."""
SUBSCRIPTION_CHANGES = frozenset(
    f"customer.subscription.{what}" for what in ("created", "updated", "deleted")
)

log = logging.getLogger("payment-webhook")


@dataclass(frozen=True, slots=True)
class Settings:
    gateway_url: str
    write_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)

    @classmethod
    def from_env(cls) -> Self:
        """Raises KeyError with the name of a variable that is missing."""
        return cls(
            gateway_url=os.environ.get("GATEWAY_URL", "http://localhost:8081"),
            write_key=os.environ["FLAGPOST_WRITE_KEY"],
            webhook_secret=os.environ["PAYMENT_WEBHOOK_SECRET"],
        )


SETTINGS = web.AppKey("settings", Settings)
GATEWAY = web.AppKey("gateway", ClientSession)


def is_signed(body: bytes, header: str, secret: str, now_seconds: float) -> bool:
    """Whether `t=…,v1=…` holds the HMAC-SHA256 of `t.body`, and t is not long ago.

    While the secret is being changed there is a v1 for the old one and one for the new.
    """
    members = [member.strip().partition("=")[::2] for member in header.split(",")]
    moment = next((value for name, value in members if name == "t"), "")
    if not re.fullmatch("[0-9]{1,12}", moment) or abs(now_seconds - int(moment)) > TOLERANCE_SECONDS:
        return False
    right = hmac.new(secret.encode(), moment.encode() + b"." + body, "sha256").hexdigest().encode()
    return any(name == "v1" and hmac.compare_digest(right, value.encode()) for name, value in members)


def account_event(notification: Mapping[str, Any]) -> dict[str, Any]:
    """What the gateway is told; KeyError, IndexError or TypeError where the notification lacks it.

    `event_id` is the provider's, which makes a repeated notification a repeated event, and `occurred_at` the
    provider's time, by which Flagpost lets the newest value win when notifications overtake each other.
    """
    subscription = notification["data"]["object"]
    item = subscription["items"]["data"][0]
    return {
        "type": "account",
        "event_id": notification["id"],
        "occurred_at": notification["created"] * 1000,
        "account_id": subscription["metadata"]["account_id"],
        "values": {
            "plan": item["price"]["lookup_key"],
            "plan_status": subscription["status"],
            "seats": item["quantity"],
            "cancels_at_period_end": subscription["cancel_at_period_end"],
        },
    }


async def receive(request: web.Request) -> web.Response:
    body = await request.read()
    settings = request.app[SETTINGS]
    if not is_signed(body, request.headers.get("Stripe-Signature", ""), settings.webhook_secret, time.time()):
        raise web.HTTPBadRequest(
            text="the signature is missing, wrong, or too old; is the secret the endpoint's?"
        )
    notification = json.loads(body)
    if notification["type"] not in SUBSCRIPTION_CHANGES:
        return web.Response(text="nothing to do")
    try:
        event = account_event(notification)
    except (KeyError, IndexError, TypeError) as error:
        log.warning("notification %s lacks %s", notification["id"], error)
        raise web.HTTPUnprocessableEntity(
            text=f"the notification lacks {error}; subscriptions need our account's id as metadata.account_id"
        ) from None
    await tell_gateway(request.app, event)
    return web.Response(text="accepted")


async def tell_gateway(app: web.Application, event: Mapping[str, Any]) -> None:
    """Returns once Kafka has the event; HTTPServiceUnavailable makes the provider try again later."""
    try:
        async with app[GATEWAY].post("/v1/events", json=event) as answer:
            if answer.status == 202:
                return
            why = f"{answer.status}: {await answer.text()}"
    except (ClientError, TimeoutError) as error:
        why = f"{type(error).__name__}: {error}"
    log.error("the gateway did not take notification %s: %s", event["event_id"], why)
    raise web.HTTPServiceUnavailable(text="not accepted; send it again later")


def application(settings: Settings) -> web.Application:
    async def gateway(app: web.Application) -> AsyncIterator[None]:
        headers = {"Authorization": f"Bearer {settings.write_key}"}
        timeout = ClientTimeout(total=GATEWAY_SECONDS)
        async with ClientSession(settings.gateway_url, headers=headers, timeout=timeout) as app[GATEWAY]:
            yield

    app = web.Application()
    app[SETTINGS] = settings
    app.cleanup_ctx.append(gateway)
    app.router.add_post("/payments", receive)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    web.run_app(application(Settings.from_env()), host="127.0.0.1", port=int(os.environ.get("PORT", "8090")))
