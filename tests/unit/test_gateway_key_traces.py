"""The body of a client that is not known yet is parsed only if it contains a known write key somewhere."""

from __future__ import annotations

from typing import cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from flagpost_publisher.gateway.documents import Documents
from flagpost_publisher.gateway.event_writer import EventWriter
from flagpost_publisher.gateway.exchange import Arrival
from flagpost_publisher.gateway.key_ring import KeyRing
from flagpost_publisher.gateway.rates import Rates
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.segment import FRONTS, answer
from flagpost_publisher.gateway.settings import load_settings
from flagpost_publisher.gateway.slices import Slices
from flagpost_publisher.gateway.write_keys import MAX_TRACES, WriteKeys

KEY, OTHER = "a-key-with-</&-4711", "another-key-4711"


@pytest.fixture
def keys() -> WriteKeys:
    environ = {
        "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": "k:1",
        "FLAGPOST_GATEWAY__WRITE_KEYS": f'["{KEY}"]',
    }
    ring = KeyRing(load_settings(None, environ).gateway)
    return WriteKeys(ring, Rates(), lambda _: pytest.fail("limited"))


def body_with(key: str, before: str = "") -> bytes:
    return f'{{{before}"writeKey":"{key}"}}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        body_with(KEY),
        b"\xef\xbb\xbf" + body_with(KEY),
        body_with(KEY).replace(b":", b" :\n "),
        body_with(KEY.replace("/", "\\/")),  # as PHP writes it
        body_with(KEY.replace("<", "\\u003c").replace("&", "\\u0026")),  # as Go does
        body_with(KEY, '"batch":[{"properties":{"writeKey":"no"}}],'),
        body_with(KEY, '"writeKey":1,"writeKey":"","x":"\\"writeKey\\":",'),
    ],
)
def test_a_body_that_may_hold_a_key_is_parsed(keys: WriteKeys, body: bytes) -> None:
    keys.require_trace_in(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[" + b"[]," * 10_000 + b"0]",
        body_with(OTHER),
        body_with(KEY).lower(),
        body_with(KEY).removesuffix(b'"}'),
        body_with("\\x"),
        KEY.encode(),
        b'{"writeKey":["%b"]}' % KEY.encode(),
        b'"writeKey":' * 3_000,
        body_with(KEY, '"writeKey":"no",' * MAX_TRACES),
    ],
)
async def test_a_body_that_holds_no_key_is_not_parsed(keys: WriteKeys, body: bytes) -> None:
    """Before the fix, unknown clients sent 32 KB of brackets, a thousand at a time: the loop only parsed them."""

    def parse(_: bytes) -> object:
        pytest.fail("parsed")

    documents = Documents(
        parse, FRONTS["/v1/track"], answer, cast("EventWriter", None), cast("Slices", None), keys
    )
    with pytest.raises(Refusal) as refused:
        await documents(Arrival(body, CIMultiDictProxy(CIMultiDict()), 0, "", None))
    assert refused.value.status == 401
