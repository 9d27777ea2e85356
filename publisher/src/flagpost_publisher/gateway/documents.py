"""The handler of routes that take events: a document in, an answer once Kafka has all of it.

In: an `Arrival`. Out: the route's `Answer`, or a `Refusal`. The whole document is read before anything is produced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flagpost_publisher.gateway.event_writer import EventWriter
from flagpost_publisher.gateway.exchange import Answer, Arrival
from flagpost_publisher.gateway.fronts import DocumentError, Front, Reading
from flagpost_publisher.gateway.refusals import Refusal


def already_guarded(headers: Mapping[str, str], document: object) -> None:
    """For routes whose guard has seen all there is to see."""
    del headers, document


@dataclass(frozen=True, slots=True)
class Documents:
    """Reads documents by one front."""

    parse: Callable[[bytes], object]
    """The body as JSON; raises DocumentError."""
    front: Front
    answer: Callable[[Reading], Answer]
    events: EventWriter
    guard: Callable[[Mapping[str, str], object], None] = already_guarded
    """Looks at headers and document, where a write key may be in the document; raises Refusal."""

    async def __call__(self, arrival: Arrival) -> Answer:
        """Publish what the body holds."""
        try:
            reading = self._read(arrival)
        except DocumentError as error:
            raise Refusal(400, str(error), index=error.index, field=error.field) from None
        await self.events.write(reading)
        return self.answer(reading)

    def _read(self, arrival: Arrival) -> Reading:
        document = self.parse(arrival.body)
        self.guard(arrival.headers, document)
        return self.front(document, arrival.received_at)
