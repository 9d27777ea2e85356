"""Writer schemas for the decoder, from the registry.

In: a schema id that the decoder does not know. Out: the schema in the decoder, or its refusal. A registry that
does not answer is asked again without end: what waits for it is never dead-lettered for that.
"""

from __future__ import annotations

import asyncio

import structlog

from flagpost_consumer.adapters.schema_registry import (
    RegistryNotAnswering,
    SchemaDoesNotExist,
    SchemaRegistry,
)
from flagpost_schemas import Decoder

log = structlog.get_logger(__name__)

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0


class RegistrySchemas:
    """The schemas of one registry."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry

    async def __call__(self, decoder: Decoder, schema_id: int) -> None:
        """Add the schema to the decoder, or refuse it; returns when one of the two is done."""
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                decoder.add_schema(schema_id, await self._registry.fetch(schema_id))
            except SchemaDoesNotExist as error:
                decoder.refuse_schema(schema_id, str(error))
            except RegistryNotAnswering as error:
                log.warning("waiting for the schema registry", schema_id=schema_id, reason=str(error))
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT_SECONDS, wait * 2)
                continue
            return
