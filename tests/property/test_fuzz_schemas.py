"""Writer schemas of a registry to which anybody may write, and records that fit them or do not."""

from __future__ import annotations

import io
import json
from random import Random
from typing import Any

from fastavro import parse_schema, schemaless_writer
from fastavro.utils import generate_one
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from chaos.mutations import BYTE_MUTATIONS
from example_counts import examples
from flagpost_schemas import EVENT_TYPES, DecodeError, Decoder, Event, encode_single_object, schema_of

TYPES: tuple[Any, ...] = (
    "null", "boolean", "int", "long", "float", "double", "string", "bytes",
    ["null", "string"], ["string", "null"], ["null", "long", "string"], ["null", "bytes"],
    {"type": "map", "values": "string"}, {"type": "map", "values": ["null", "long"]},
    {"type": "array", "items": "string"}, {"type": "fixed", "name": "Four", "size": 4},
    {"type": "enum", "name": "Colour", "symbols": ["RED", "agent"]},
    {"type": "long", "logicalType": "timestamp-millis"}, {"type": "string", "logicalType": "uuid"},
    {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "long"}]},
)  # fmt: skip


def altered(random: Random, schema: dict[str, Any]) -> dict[str, Any]:
    """Change one of our schemas as another writer might have."""
    fields: list[dict[str, Any]] = schema["fields"]
    for _ in range(random.randint(1, 3)):
        field = random.choice(fields)
        change = random.randrange(5)
        if change == 0 and len(fields) > 1:
            fields.remove(field)
        elif change == 1:
            field["name"] = random.choice((f"{field['name']}_2", "visitorId"))
        elif change == 2:
            random.shuffle(fields)
        else:
            field.pop("default", None)
            field["type"] = random.choice(TYPES)
    return schema


def written(schema: dict[str, Any]) -> bytes:
    """A record of a schema, with values that fit it."""
    parsed = parse_schema(schema, named_schemas={})
    body = io.BytesIO()
    schemaless_writer(body, parsed, generate_one(parsed))
    return body.getvalue()


def decoded(decoder: Decoder, body: bytes) -> Event | str:
    """The event in a body of schema 7, or why there is none."""
    try:
        return decoder.decode(b"\x00\x00\x00\x00\x07" + body)
    except DecodeError as error:
        return str(error)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=examples(200), phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_a_strange_writer_schema_results_in_events_of_our_types_or_a_reason(seed: int) -> None:
    random = Random(seed)
    schema = altered(random, json.loads(schema_of(random.choice(EVENT_TYPES)).text))
    try:
        body = written(schema)
    except Exception:  # noqa: BLE001 - a registry would not accept this schema: a name is defined twice, or the like
        return
    if random.random() < 0.3:
        body = random.choice(list(BYTE_MUTATIONS.values()))(random, body or b"\x00") or b""
    decoder = Decoder()
    decoder.add_schema(7, json.dumps(schema))
    read = decoded(decoder, body)
    if isinstance(read, str):
        assert read
    else:
        encode_single_object(read)  # which refuses values of other types than the schema's


@given(
    st.text(max_size=200)
    | st.sampled_from(['{"type":' * 5_000, "[" * 5_000, '"string"', "{}", "null", "\x00"])
)
def test_records_of_a_text_that_is_not_a_schema_have_a_reason(text: str) -> None:
    decoder = Decoder()
    decoder.add_schema(7, text)
    assert str(decoded(decoder, b"\x00")).startswith("schema id 7: ")
