"""The gateway's HTTP interface as an OpenAPI document.

In: the gateway's routes, the events' classes and Avro schemas. Out: the document, OpenAPI 3.1. Its schema of an event
is never stricter than the gateway; limits of size, of rate and of Avro's numbers are in docs/gateway.md, in words.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final

from flagpost_publisher.gateway import native, segment, webhooks_route
from flagpost_publisher.gateway.webhooks import SIGNATURE_HEADER
from flagpost_schemas import EVENT_TYPES, Event, MetadataGroup, RuleType, schema_of
from flagpost_schemas.json_form import TYPES

Json = dict[str, Any]

_ROOT: Final = Path(__file__).parents[1]
_NULLABLE_TEXT: Final[Json] = {"type": ["string", "null"]}
_ANY_OBJECT: Final[Json] = {"type": "object", "description": "Nested objects are flattened with `_`."}
_TIME: Final[Json] = {
    "type": ["string", "integer", "number"],
    "description": "Epoch milliseconds, or RFC 3339 with an offset; default: the current time.",
}
_OF_FIELD: Final[Mapping[str, Json]] = {
    "event_id": {
        "type": ["string", "null"],
        "maxLength": 128,
        "description": "Unique to this event; default: a new one. Send the same id again with a retry.",
    },
    "occurred_at": _TIME,
    "attributes": _ANY_OBJECT,
    "properties": _ANY_OBJECT,
    "values": {"type": "object", "description": "Lists of strings stay lists; everything else is flattened."},
    "group": {"enum": [group.value for group in MetadataGroup]},
    "rule_type": {"enum": [None, *(rule_type.value for rule_type in RuleType)]},
}
"""Where the JSON form differs from the Avro schema."""

_REFUSALS: Final[Mapping[str, str]] = {
    "400": "The body, or an event in it, is invalid; nothing was published.",
    "401": "No known write key.",
    "403": "The key may not send events of this type, or from this origin.",
    "408": "The body arrived too slowly.",
    "413": "The request, or what it becomes, is too large.",
    "415": "The media type or the content encoding is not supported.",
    "429": "The key is above its rate: send the request again after retry-after seconds.",
    "503": "Kafka takes no events, or too much is in progress: send the request again after retry-after seconds.",
}


def document() -> Json:
    """The whole document."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flagpost-gateway",
            "version": project["version"],
            "license": {"name": "Apache 2.0", "identifier": project["license"]},
            "summary": "Takes events over HTTP; answers once Kafka has acknowledged them.",
        },
        "servers": [{"url": "http://localhost:8081"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A write key."},
                "basic": {"type": "http", "scheme": "basic", "description": "A write key as the user name."},
            },
            "schemas": {
                **{event_type.__name__: event_schema(event_type) for event_type in EVENT_TYPES},
                "Event": {"oneOf": [_reference(event_type.__name__) for event_type in EVENT_TYPES]},
                "Refusal": _refusal(),
            },
        },
    }


def event_schema(event_type: type[Event]) -> Json:
    """The JSON schema of one event in the form that `/v1/events` takes."""
    avro = json.loads(schema_of(event_type).text)
    types = {each["name"]: each for each in avro["fields"]}
    properties: Json = {"type": {"const": _name_of(event_type)}}
    required = ["type"]
    for each in fields(event_type):
        found = _OF_FIELD.get(each.name) or _of_avro(types[each.name]["type"])
        properties[each.name] = {"description": types[each.name].get("doc", ""), **found}
        if each.default is MISSING and each.default_factory is MISSING and each.name not in _FILLED_IN:
            required.append(each.name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_FILLED_IN: Final = frozenset({"event_id", "occurred_at"})
"""Fields that the gateway fills in if they are left out."""


def _name_of(event_type: type[Event]) -> str:
    (name,) = (name for name, each in TYPES.items() if each is event_type)
    return name


def _of_avro(kind: Any) -> Json:  # noqa: ANN401 - Avro's JSON
    match kind:
        case "string" | "boolean":
            return {"type": kind}
        case ["null", "string"]:
            return dict(_NULLABLE_TEXT)
        case ["null", inner]:
            return {"anyOf": [_of_avro(inner), {"type": "null"}]}
        case {"type": "map", "values": values}:
            return {"type": "object", "additionalProperties": _of_avro(values)}
        case {"type": "record", "fields": inner}:
            properties = {each["name"]: _of_avro(each["type"]) for each in inner}
            return {"type": "object", "properties": properties, "additionalProperties": False}
    raise ValueError(f"no JSON schema for the Avro type {kind}")


def _paths() -> Json:
    event = _reference("Event")
    native_body = {"oneOf": [event, {"type": "array", "items": event, "minItems": 1}]}
    paths: Json = {
        native.PATH: {
            "post": _operation(
                "Flagpost's own events: one, or an array",
                native_body,
                "202",
                {"accepted": {"type": "integer"}},
            )
        }
    }
    for path in segment.FRONTS:
        body = {"type": "object", "description": "A request body of Segment's HTTP tracking API."}
        answered = {"success": {"const": True}}
        paths[path] = {"post": _operation("Segment's HTTP tracking API", body, "200", answered)}
    webhook = _operation("Pendo's webhooks", {"type": "object"}, "200", {"published": {"type": "boolean"}})
    signature = {"name": SIGNATURE_HEADER, "in": "header", "required": True, "schema": {"type": "string"}}
    webhook["responses"]["404"] = _refused("Webhooks are off: there is no secret to verify them with.")
    paths[webhooks_route.PATH] = {"post": {**webhook, "security": [], "parameters": [signature]}}
    return paths


def _operation(summary: str, body: Json, status: str, answered: Json) -> Json:
    refusals = {code: _refused(text) for code, text in _REFUSALS.items()}
    done = {
        "description": "Kafka has acknowledged all of it.",
        "content": _json({"type": "object", "properties": answered, "required": list(answered)}),
    }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {status: done, **refusals},
    }


def _refused(description: str) -> Json:
    return {"description": description, "content": _json(_reference("Refusal"))}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _refusal() -> Json:
    return {
        "type": "object",
        "properties": {
            "error": {"type": "string"},
            "index": {"type": ["integer", "null"], "description": "Which event of the request, from 0."},
            "field": dict(_NULLABLE_TEXT),
            "fix": {"type": "string", "description": "What to do, if the error does not say it."},
        },
        "required": ["error", "index", "field"],
    }
