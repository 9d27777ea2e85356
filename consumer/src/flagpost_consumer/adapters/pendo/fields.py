"""Pendo's metadata fields, as its schema endpoint lists them.

In: the endpoint's answers. Out: which configured names are fields, and their API names. Read tolerantly: a
field's display name may be DisplayName, displayName or display_name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from flagpost_consumer.core.planning.plan import FieldCatalog, Fields

TARGETS = ("visitor", "account")
GROUPS = ("custom", "agent")
_DISPLAY_NAMES = ("DisplayName", "displayName", "display_name")

GetJson = Callable[[str], Awaitable[bytes | None]]


async def read_fields(get_json: GetJson) -> FieldCatalog:
    """Ask Pendo for its fields; a group that cannot be read is left out."""
    catalog: dict[tuple[str, str], Fields] = {}
    for target in TARGETS:
        body = await get_json(f"/api/v1/metadata/schema/{target}")
        for group, fields in (parse_schema(body) if body is not None else {}).items():
            catalog[target, group] = fields
    return catalog


def parse_schema(body: bytes) -> dict[str, Fields]:
    """Read one answer of the schema endpoint: group to its fields."""
    try:
        schema = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(schema, dict):
        return {}
    return {group: _fields(schema[group]) for group in GROUPS if isinstance(schema.get(group), dict)}


def _fields(listed: dict[str, Any]) -> Fields:
    by_display_name = {
        entry[member]: api_name
        for api_name, entry in listed.items()
        if isinstance(entry, dict)
        for member in _DISPLAY_NAMES
        if isinstance(entry.get(member), str)
    }
    # An API name is exact; a display name that is also another field's API name must not hide that field.
    return {**by_display_name, **{api_name: api_name for api_name in listed}}
