"""The settings file as JSON schema (draft 7): what the programs accept, and nothing that a ConfigMap may not hold.

In: the models of the consumer's and the gateway's settings. Out: the schema of `config`. It is never laxer than the
programs, and stricter only where a value would not reach them as it was meant, or would show a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from flagpost_consumer.settings import Settings as ConsumerSettings
from flagpost_publisher.gateway.settings import Settings as GatewaySettings
from flagpost_settings.section import EMPTY_IF_NULL, SECTIONS
from settings_schema.rules import INSTEAD, RULES

Json = dict[str, Any]

SECRET: Final[Json] = {"const": "in a Secret, its key named under `secrets`: a ConfigMap is for many to read"}
"""No text of a secret is this one. Helm says: value must be '…'."""

LEAST_FRACTION: Final = 0.0001
"""Helm writes 0.00001 as 1e-05, which is a text in YAML 1.1."""

MISREAD: Final[Json] = {
    "not": {"type": "string", "pattern": "^(=|<<)$|[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]"}
}
"""Texts that Helm writes as they are, and that are something else, or nothing, in YAML 1.1."""

FOR_PEOPLE: Final = {"title", "default", "description"}


class _OfConfig(GenerateJsonSchema):
    """Pydantic's schemas, in the words of this one."""

    def function_plain_schema(self, _: core_schema.PlainValidatorFunctionSchema) -> Json:
        """Of a Secret: all that is made by a function alone."""
        return dict(SECRET)

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Json:
        """A section whose keys are all commented out is null."""
        found = super().function_before_schema(schema)
        is_section = schema["function"]["function"] is EMPTY_IF_NULL.func
        return {"anyOf": [found, {"type": "null"}]} if is_section else found

    def str_schema(self, schema: core_schema.StringSchema) -> Json:
        """A text that is one in YAML 1.1 too."""
        found = super().str_schema(schema)
        return found if "pattern" in found else {**found, **MISREAD}

    def float_schema(self, schema: core_schema.FloatSchema) -> Json:
        """A number that is one in YAML 1.1 too."""
        found = super().float_schema(schema)
        if found.pop("exclusiveMinimum", None) == 0:
            return {**found, "minimum": LEAST_FRACTION}
        if found.get("minimum") == 0:
            return {"anyOf": [{"const": 0}, {**found, "minimum": LEAST_FRACTION}]}
        return found


def config() -> Json:
    """The schema of the whole file; a section that no model describes may hold anything."""
    described = {**_sections(ConsumerSettings), **_sections(GatewaySettings)}
    anything: Json = {"type": ["object", "null"]}
    properties = {name: described.get(name, anything) for name in SECTIONS}
    found: Json = {"type": "object", "additionalProperties": False, "properties": properties}
    for path, rule in RULES.items():
        _at(found, path[:-1])["properties"][path[-1]].setdefault("allOf", []).append(rule)
    for path, schema in INSTEAD.items():
        _at(found, path[:-1])["properties"][path[-1]] = dict(schema)
    return found


def _sections(model: type[BaseModel]) -> dict[str, Json]:
    """The sections that are a program's own: of those that it only looks into, it passes other keys over."""
    whole = model.model_json_schema(schema_generator=_OfConfig)
    definitions = whole.pop("$defs")
    sections: dict[str, Json] = _plain(whole, definitions)["properties"]
    return {
        name: section for name, section in sections.items() if section.get("additionalProperties") is False
    }


def _at(schema: Json, path: tuple[str, ...]) -> Json:
    """The schema of a key."""
    for name in path:
        schema = schema["properties"][name]
    return schema


def _plain(schema: Any, definitions: Mapping[str, Json]) -> Any:  # noqa: ANN401 - a part of JSON
    """The schema with its references resolved, and without what only people read."""
    if isinstance(schema, list):
        return [_plain(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _plain(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    found = _one({key: _of_key(key, schema[key], definitions) for key in schema if key not in FOR_PEOPLE})
    # Of a map whose keys have a form, others are refused.
    return {**found, "additionalProperties": False} if "patternProperties" in found else found


def _of_key(key: str, value: Any, definitions: Mapping[str, Json]) -> Any:  # noqa: ANN401 - the same
    """The same of what a key holds; a setting may be called `title`."""
    if key == "properties":
        return {name: _plain(inner, definitions) for name, inner in value.items()}
    return _plain(value, definitions)


def _one(schema: Json) -> Json:
    """`anyOf` as a list of types, where it says no more: Helm's complaints about a single schema are shorter."""
    parts = [dict(part) for part in schema.get("anyOf", ())]
    if not parts or any("anyOf" in part for part in parts):
        return schema
    types = [part.pop("type", None) for part in parts]
    keywords = [part for part in parts if part]
    if len(keywords) > 1 or None in types:
        return schema
    (told,) = keywords or [{}]
    if "enum" in told and "null" in types:
        told["enum"] = [*told["enum"], None]
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **told, "type": types}
