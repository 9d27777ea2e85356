"""Decodes the events in records' values, for operators' commands.

In: values in either wire format; the registry, if configured. Out: events, and events as the JSON that `flagpost
preview` reads.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flagpost_consumer.adapters.registry.errors import SchemaRefused, SchemaUnusable
from flagpost_consumer.settings import SchemaRegistrySettings
from flagpost_schemas import Decoder, Event, SchemaNeeded
from flagpost_schemas.json_form import TYPES

if TYPE_CHECKING:
    from flagpost_consumer.adapters.registry.schema_registry import SchemaRegistry

_NAMES = {event_type: name for name, event_type in TYPES.items()}


class Values:
    """Decodes values; each schema is fetched once."""

    def __init__(self, registry: SchemaRegistrySettings) -> None:
        self.decoder = Decoder()
        self._registry = None if registry.url is None else _client(registry.url, registry)

    def decode(self, value: bytes | None) -> Event:
        """The event in a value.

        Raises:
            DecodeError: it cannot be decoded here.
            RegistryNotAnswering: the registry is needed, but does not answer.
        """
        try:
            return self.decoder.decode(value)
        except SchemaNeeded as needed:
            self.learn(needed.schema_id)
        return self.decoder.decode(value)

    def learn(self, schema_id: int) -> None:
        """Fetch a schema for the decoder. Raises RegistryNotAnswering."""
        if self._registry is None:
            why = "it needs a schema registry: set kafka.schema_registry.url"
            self.decoder.refuse_schema(schema_id, why)
            return
        try:
            self.decoder.add_schema(schema_id, asyncio.run(_fetch(self._registry, schema_id)))
        except (SchemaRefused, SchemaUnusable) as error:
            self.decoder.refuse_schema(schema_id, str(error))


def _client(url: str, settings: SchemaRegistrySettings) -> SchemaRegistry:
    """Import the client only if there is a registry: that takes a while."""
    from flagpost_consumer.adapters.registry.schema_registry import SchemaRegistry  # noqa: PLC0415

    return SchemaRegistry(url, settings)


async def _fetch(registry: SchemaRegistry, schema_id: int) -> str:
    """Fetch in an event loop of its own, which connections do not outlive."""
    async with registry:
        return await registry.fetch(schema_id)


def event_as_json(event: Event) -> dict[str, Any]:
    """The event in the form of `flagpost preview`."""
    return {"type": _NAMES[type(event)], **asdict(event)}
