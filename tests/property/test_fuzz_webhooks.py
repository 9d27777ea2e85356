"""A body that Pendo signed is a webhook that can be published, or is refused; an unsigned body is always refused."""

from __future__ import annotations

import hashlib
import hmac
import json

from hypothesis import given
from hypothesis import strategies as st

from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.webhooks import Webhook, is_signed, read_webhook

NOW = 1_800_000_000_000
SECRET = "shh"
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(categories=["L", "N", "Cs"]), max_size=9)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
VISITORS = st.fixed_dictionaries({}, optional={"visitorId": SCALARS, "visitor_id": SCALARS})
DOCUMENTS = JSON | st.fixed_dictionaries(
    {"timestamp": st.just(NOW) | SCALARS | st.floats(min_value=-1e20, max_value=1e20)},
    optional={"event_type": SCALARS, "event": SCALARS, "data": VISITORS | JSON, "visitorId": SCALARS},
)
BODIES = DOCUMENTS.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=50)


def signature(body: bytes) -> str:
    return "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


def read(body: bytes) -> Webhook | Refusal:
    try:
        return read_webhook(body, [signature(body)], [SECRET], now_ms=NOW, max_age_seconds=60)
    except Refusal as refusal:
        return refusal


@given(BODIES)
def test_a_body_that_pendo_signed_can_be_published_or_is_refused(body: bytes) -> None:
    result = read(body)
    if isinstance(result, Refusal):
        assert result.status == 400
        assert result.document["field"] in {"body", "timestamp"}
        return
    assert result.body == body
    for text in (result.digest, result.event_type, result.visitor_id or ""):
        assert text.encode().decode() == text


@given(st.binary(max_size=20), st.lists(st.binary(max_size=80), max_size=2))
def test_a_body_that_is_not_signed_with_the_secret_is_refused(body: bytes, headers: list[bytes]) -> None:
    given_values = [header.decode("utf-8", "surrogateescape") for header in headers]
    assert not is_signed(body, given_values, [SECRET])
