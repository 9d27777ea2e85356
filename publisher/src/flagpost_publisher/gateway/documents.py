"""The handler of routes that take events: a document comes in, and it is answered once Kafka has everything.

In: an `Arrival`. Out: the route's `Answer`, or a `Refusal`. The whole document is read before anything is produced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from flagpost_publisher.gateway.event_writer import Batch, EventWriter
from flagpost_publisher.gateway.exchange import Answer, Arrival
from flagpost_publisher.gateway.fronts import DocumentError, Front, Reading
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.slices import Slice, Slices
from flagpost_publisher.gateway.write_keys import WriteKeys


@dataclass(frozen=True, slots=True)
class Documents:
    """Reads documents with one front."""

    parse: Callable[[bytes], object]
    """Parses the body as JSON; raises DocumentError."""
    front: Front
    answer: Callable[[Reading], Answer]
    events: EventWriter
    slices: Slices
    keys: WriteKeys

    async def __call__(self, arrival: Arrival) -> Answer:
        """Publish the contents of the body."""
        if arrival.key is None:
            self.keys.require_trace_in(arrival.body)
        try:
            async with self.slices.turn(arrival.sender, len(arrival.body)) as turn:
                batch, answer = await self._read(arrival, turn)
        except DocumentError as error:
            raise Refusal(error.status, str(error), index=error.index, field=error.field) from None
        await self.events.write(batch)
        return answer

    async def _read(self, arrival: Arrival, turn: Slice) -> tuple[Batch, Answer]:
        """What to write, and the answer after that: nothing else is kept while waiting for Kafka."""
        document = self.parse(arrival.body)
        key = arrival.key or self.keys.require_in(document, arrival.headers, arrival.address)
        reading = self.events.reading(arrival.received_at, key)
        for _ in self.front(document, reading):
            await turn.pause()
        self.keys.count(key, arrival.address, len(reading.events) + reading.set_aside.total())
        return self.events.batch(reading), replace(self.answer(reading), key=key)
