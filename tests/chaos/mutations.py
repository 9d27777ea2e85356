"""Records as broken or hostile producers write them.

In: a seed, the time, the registry's ids of the four schemas. Out: mutants: key, value, headers and timestamp of one
record, and the name of the mutation. About half of them have hostile fields in valid Avro, which tests planning,
mapping, Pendo's rules and request bodies; the others are good events with damaged bytes, keys or headers, and a few
are left unchanged. The same seed and time produce the same mutants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import inf, nan
from random import Random
from typing import Any, cast

from flagpost_schemas import (
    EVENT_TYPES,
    AccountMetadata,
    Context,
    DecisionEvent,
    Event,
    MetadataGroup,
    Scalar,
    Source,
    TrackEvent,
    VisitorMetadata,
    encode_confluent,
    encode_single_object,
    partition_key,
)

Headers = tuple[tuple[str | bytes, bytes | None], ...]
"""A header's name is `bytes` only if it is not valid UTF-8."""

DAY_MS = 86_400_000
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Mutant:
    """One record."""

    mutation: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


# Good events


def sample_event(random: Random, now_ms: int) -> Event:
    """An event as a service would publish it; ids come from small pools, so that some events are duplicates."""
    visitor_id = f"visitor-{random.randrange(5_000):05d}"
    shared: dict[str, Any] = {
        "event_id": f"{random.getrandbits(128):032x}",
        "occurred_at": now_ms - random.randrange(60_000),
        "context": random.choice(
            (None, Context(ip="203.0.113.7", url="https://shop.example/cart", locale="de"))
        ),
        "consent": random.choice((None, None, {"analytics": True})),
        "source": Source(service="checkout", sdk="python-sdk"),
    }
    kind = random.choices(EVENT_TYPES, (5, 3, 1, 1))[0]
    if kind is DecisionEvent:
        return DecisionEvent(
            **shared, visitor_id=visitor_id, account_id="acme", flag_key=f"flag_{random.randrange(20)}",
            enabled=random.random() < 0.9, variation_key=random.choice(("treatment", "control", None)),
            rule_key="experiment_rule", decision_event_dispatched=True, attributes={"plan": "gold", "age": 44},
        )  # fmt: skip
    if kind is TrackEvent:
        name = random.choice(("page", "Order Completed", "Clicked", "Product Viewed"))
        return TrackEvent(
            **shared, visitor_id=visitor_id, event=name, properties={"price": 9.5, "sku": "a-1"}
        )
    if kind is VisitorMetadata:
        return VisitorMetadata(**shared, visitor_id=visitor_id, values={"role": "admin", "teams": ["a", "b"]})
    return AccountMetadata(**shared, account_id=f"account-{random.randrange(500):03d}", values={"seats": 40})


# Hostile fields

TEXTS = (
    "", " ", "\x00", "\x1b[2J\x07", "a\r\nb", "\u202eright to left", "\ufeffmark", "\uffff", "\u2028", "e\u0301" * 40,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0010ffff", "{flag_key}", "{0.__class__}", "%s%n", "${HOME}",
    "..", "null", "undefined", "NaN", "'; DROP TABLE visitors; --", "<script>alert(1)</script>", "error", "__proto__",
    "x" * 128, "x" * 129, "\u00e9" * 512, '"' * 400, "\\" * 400, "x" * 1_500, "x" * 1_501, "\U0001f600" * 2_000, "*",
    "[z-a]",
)  # fmt: skip
NUMBERS: tuple[Scalar, ...] = (
    0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 0.0, -0.0, 5e-324, 1.7976931348623157e308, nan, inf, -inf, True,
    False, None,
)  # fmt: skip
NAMES = (*TEXTS, "2nd", "a b", "__a__", "_", "url", "title", "revenue", "products_count", "flag_key", "plan")
TEXT_FIELDS = frozenset(
    {
        "event_id", "account_id", "visitor_id", "anonymous_id", "flag_key", "variation_key", "rule_key",
        "experiment_id", "variation_id", "event",
    }
)  # fmt: skip
MAP_FIELDS = frozenset({"attributes", "properties", "values"})


def _with(event: Event, changes: Mapping[str, object]) -> Event:
    """A copy of the event with changes, whose types are not checked."""
    return replace(event, **cast("dict[str, Any]", changes))


def _field(random: Random, event: Event, among: frozenset[str]) -> str:
    return random.choice([field.name for field in fields(event) if field.name in among])


def _text(random: Random) -> str:
    if random.random() < 0.7:
        return random.choice(TEXTS)
    beyond = random.choice((0x20, 0x80, 0x800, 0xD800))  # surrogates begin at 0xD800
    return "".join(chr(random.randrange(beyond)) for _ in range(random.randrange(60)))


def _members(random: Random, count: int) -> dict[str, Scalar]:
    names = [random.choice((random.choice(NAMES), _text(random))) for _ in range(count)]
    return {name: random.choice((random.choice(NUMBERS), _text(random))) for name in names}


def _hostile_text(random: Random, event: Event) -> Event:
    return _with(event, {_field(random, event, TEXT_FIELDS): _text(random)})


def _empty_text(random: Random, event: Event) -> Event:
    return _with(event, {_field(random, event, TEXT_FIELDS): ""})


def _megabyte_text(random: Random, event: Event) -> Event:
    text = random.choice(("x", "\u00e9")) * (MEGABYTE // 2)
    return _with(event, {_field(random, event, TEXT_FIELDS): text})


def _null_fields(random: Random, event: Event) -> Event:
    nullable = [field.name for field in fields(event) if field.default is None]
    return _with(event, dict.fromkeys(random.sample(nullable, random.randint(1, len(nullable)))))


def _at(event: Event, moment_ms: int) -> Event:
    """A copy with another time, which is kept within an Avro long's 64 bits even after two mutations."""
    return replace(event, occurred_at=max(-(2**63), min(moment_ms, 2**63 - 1)))


def _impossible_time(random: Random, event: Event) -> Event:
    now_ms = event.occurred_at
    times = (0, -1, 2**63 - 1, -(2**63), now_ms * 1000, now_ms // 1000, now_ms + 3_650 * DAY_MS, 2**53)
    return _at(event, random.choice(times))


def _old(random: Random, event: Event) -> Event:
    return _at(event, event.occurred_at - random.randrange(6 * DAY_MS, 30 * DAY_MS))


def _ahead(random: Random, event: Event) -> Event:
    return _at(event, event.occurred_at + random.randrange(900_000))


def _hostile_map(random: Random, event: Event) -> Event:
    return _with(event, {_field(random, event, MAP_FIELDS): _members(random, random.randrange(12))})


def _many_members(random: Random, event: Event) -> Event:
    name = random.choice(("m{}", "2nd {}", "x" * 40 + "{}", "\u00e9{}"))
    members = {name.format(number): number for number in range(random.choice((90, 600, 3_000)))}
    return _with(event, {_field(random, event, MAP_FIELDS): members})


def _hostile_context(random: Random, event: Event) -> Event:
    return replace(event, context=Context(**{field.name: _text(random) for field in fields(Context)}))


def _hostile_consent(random: Random, event: Event) -> Event:
    consent = {_text(random): random.random() < 0.5 for _ in range(random.randrange(4))}
    return replace(event, consent={**consent, **random.choice(({}, {"analytics": random.random() < 0.5}))})


def _other_group(random: Random, event: Event) -> Event:
    if isinstance(event, DecisionEvent):
        return replace(event, enabled=random.random() < 0.5, variation_key=random.choice((None, "", "off")))
    if isinstance(event, TrackEvent):
        return replace(event, visitor_id=None, anonymous_id=random.choice((None, _text(random))))
    lists: dict[str, Any] = {_text(random): [_text(random) for _ in range(random.randrange(5))]}
    return replace(event, group=random.choice(list(MetadataGroup)), values=lists)


EventMutation = Callable[[Random, Event], Event]
EVENT_MUTATIONS: dict[str, EventMutation] = {
    "hostile text": _hostile_text,
    "empty text": _empty_text,
    "null fields": _null_fields,
    "impossible time": _impossible_time,
    "old": _old,
    "ahead": _ahead,
    "hostile map": _hostile_map,
    "many members": _many_members,
    "hostile context": _hostile_context,
    "hostile consent": _hostile_consent,
    "odd variation, visitor or group": _other_group,
}

# Damaged bytes

GIANT = b"\xff" * 8 + b"\x7f"
"""-(2**62) as Avro writes it."""
LENGTHS = (GIANT, b"\xfe" + b"\xff" * 8 + b"\x01", b"\xff" * 9 + b"\x01", b"\x01", b"\x03", b"\xff" * 20)
NOT_UTF8 = (b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82")


def _place(random: Random, value: bytes) -> int:
    return random.randrange(len(value))


def _put(value: bytes, place: int, put: bytes, instead_of: int = 0) -> bytes:
    return value[:place] + put + value[place + instead_of :]


def _flip_bits(random: Random, value: bytes) -> bytes:
    damaged = bytearray(value)
    for _ in range(random.randint(1, 8)):
        damaged[_place(random, value)] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _cut_slice(random: Random, value: bytes) -> bytes:
    return _put(value, _place(random, value), b"", random.randint(1, 20))


def _copy_slice(random: Random, value: bytes) -> bytes:
    place = _place(random, value)
    return _put(value, _place(random, value), value[place : place + random.randint(1, 40)])


ByteMutation = Callable[[Random, bytes], bytes | None]
BYTE_MUTATIONS: dict[str, ByteMutation] = {
    "bits flipped": _flip_bits,
    "cut short": lambda random, value: value[: _place(random, value)],
    "slice cut out": _cut_slice,
    "slice copied": _copy_slice,
    "bytes put in": lambda random, value: _put(
        value, _place(random, value), random.randbytes(random.randint(1, 9))
    ),
    "bytes behind": lambda random, value: value + random.randbytes(random.randint(1, 9)),
    "impossible length": lambda random, value: _put(value, _place(random, value), random.choice(LENGTHS), 1),
    "not UTF-8": lambda random, value: _put(value, _place(random, value), random.choice(NOT_UTF8), 2),
    "header swapped": lambda random, value: (
        bytes(random.sample(list(value[:10]), len(value[:10]))) + value[10:]
    ),
    "another record's header": lambda random, value: (
        encode_single_object(sample_event(random, 0))[:10] + value[10:]
    ),
    "unknown schema": lambda random, value: value[:2] + random.randbytes(8) + value[10:],
    "unknown schema id": lambda random, value: (
        b"\x00" + random.randrange(2**32).to_bytes(4, "big") + value[10:]
    ),
    "odd schema id": lambda random, value: b"\x00" + random.randrange(12).to_bytes(4, "big") + value[10:],
    "random bytes": lambda random, value: random.randbytes(len(value)),
    "JSON": lambda *_: b'{"type":"decision","visitor_id":"v"}',
    "empty": lambda *_: b"",
    "tombstone": lambda *_: None,
}

# Keys and headers

KEYS: tuple[bytes | None, ...] = (None, b"", b"\xff\xfe", b"\x00" * 40, b"visitor-00001", b"k" * 20_000)
REPLAY_KINDS = (
    b"track", b"visitor_metadata", b"account_metadata", b"unknown", b"", None, b"TRACK", b"\xff", b"track\x00",
    b"k" * 30_000,
)  # fmt: skip
HEADERS: dict[str, tuple[Headers, ...]] = {
    "replay kind": tuple((("flagpost-replay-kind", kind),) for kind in REPLAY_KINDS),
    "replay of": tuple(
        (("flagpost-replay-of", of),) for of in (b"t/0/1", b"-1", b"\xff", None, b"9" * 5_000)
    ),
    "headers twice": (
        (("flagpost-replay-kind", b"track"), ("flagpost-replay-kind", b"visitor_metadata")),
        (("flagpost-replay-kind", None), ("flagpost-replay-kind", b"track")),
        (("trace", b"a"), ("trace", None), ("trace", b"")),
    ),
    "an earlier death's headers": (
        (("flagpost-reason", b"ok"), ("flagpost-source", b"x/9/9"), ("mine", b"1")),
    ),
    "odd header names": ((("", b"x"),), (("\u00e9" * 200, b"x"),), (("a\nb", b"x"),)),
    "large headers": ((("large", b"h" * 50_000),), tuple((f"h{number}", b"v") for number in range(500))),
    "header names not UTF-8": (((b"\xff\xfe", b"x"),), ((b"\xed\xa0\x80", b"x"), ("mine", b"1"))),
}


class Mutants:
    """An endless iterator of mutants."""

    def __init__(self, seed: int, now_ms: int, schema_ids: Mapping[type[Event], int]) -> None:
        self._random = Random(seed)
        self._now_ms = now_ms
        self._schema_ids = schema_ids

    def __next__(self) -> Mutant:
        make = self._random.choices(
            (self._untouched, self._event, self._bytes, self._around), (4, 48, 38, 10)
        )[0]
        return make()

    def __iter__(self) -> Mutants:
        return self

    def _untouched(self) -> Mutant:
        return self._mutant("nothing", sample_event(self._random, self._now_ms))

    def _event(self) -> Mutant:
        event = sample_event(self._random, self._now_ms)
        if self._random.random() < 0.002:
            return self._mutant("megabyte of text", _megabyte_text(self._random, event))
        name = self._one_of(EVENT_MUTATIONS)
        event = EVENT_MUTATIONS[name](self._random, event)
        if self._random.random() < 0.3:
            event = self._random.choice(list(EVENT_MUTATIONS.values()))(self._random, event)
        return self._mutant(name, event)

    def _bytes(self) -> Mutant:
        mutant = self._untouched()
        name = self._one_of(BYTE_MUTATIONS)
        return replace(mutant, mutation=name, value=BYTE_MUTATIONS[name](self._random, mutant.value or b""))

    def _around(self) -> Mutant:
        mutant = self._untouched()
        if self._random.random() < 0.3:
            return replace(mutant, mutation="key", key=self._random.choice(KEYS))
        name = self._one_of(HEADERS)
        return replace(mutant, mutation=name, headers=self._random.choice(HEADERS[name]))

    def _mutant(self, name: str, event: Event) -> Mutant:
        return Mutant(name, partition_key(event), self._encoded(event), (), self._now_ms)

    def _encoded(self, event: Event) -> bytes:
        if self._random.random() < 0.75:
            return encode_single_object(event)
        return encode_confluent(event, self._schema_ids[type(event)])

    def _one_of(self, named: Mapping[str, object]) -> str:
        names: Sequence[str] = list(named)
        return self._random.choice(names)
