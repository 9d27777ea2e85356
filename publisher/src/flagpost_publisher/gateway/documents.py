"""The handler of routes that take events: a document in, an answer once Kafka has all of it.

In: an `Arrival`. Out: the route's `Answer`, or a `Refusal`. The whole document is read before anything is produced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flagpost_publisher.gateway.event_writer import Batch, EventWriter
from flagpost_publisher.gateway.exchange import Answer, Arrival
from flagpost_publisher.gateway.fronts import DocumentError, DocumentTooLarge, Front, Reading
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.slices import Slices, Turn


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
    slices: Slices
    guard: Callable[[Mapping[str, str], object], None] = already_guarded
    """Looks at headers and document, where a write key may be in the document; raises Refusal."""

    async def __call__(self, arrival: Arrival) -> Answer:
        """Publish what the body holds."""
        try:
            async with self.slices.turn(len(arrival.body)) as turn:
                batch, answer = await self._read(arrival, turn)
        except DocumentError as error:
            status = 413 if isinstance(error, DocumentTooLarge) else 400
            raise Refusal(status, str(error), index=error.index, field=error.field) from None
        await self.events.write(batch)
        return answer

    async def _read(self, arrival: Arrival, turn: Turn) -> tuple[Batch, Answer]:
        """What to write, and what to say then: no more is kept while Kafka is waited for."""
        document = self.parse(arrival.body)
        self.guard(arrival.headers, document)
        reading = self.events.reading(arrival.received_at)
        for _ in self.front(document, reading):
            await turn.pause()
        return self.events.batch(reading), self.answer(reading)
