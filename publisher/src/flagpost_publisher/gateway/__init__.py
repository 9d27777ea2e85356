"""The gateway: a small HTTP server for services in any language (extra `gateway`, command `flagpost-gateway`).

In: HTTP requests with a write key. Out: events on Kafka, and an answer once Kafka has acknowledged them all.

How a request passes through it:

1. `flagpost_http` reads its headers, within bounds. `server` lets the route's guard look at them (`write_keys`),
   admits it (`admission`: requests that have shown no key have limits of their own), and reads its body (`bodies`:
   media type, content coding, size, time).
2. The route's handler makes an `Answer` from the `Arrival`, or raises a `Refusal` (`refusals`).
3. `server` answers in JSON, and counts (`metrics`).

**To add a route**, add a `Route` to the table in `routes.table`. It is made of a path, a guard and a handler, and the
handler of what is in `Parts`. There are two kinds of handler:

- Documents of events: `Documents(parse, front, answer, parts.events, parts.slices, parts.keys)`, see `documents`. A
  `Front` is a generator `(document, reading)`: it adds what parsed JSON holds to the `Reading`, events and what is
  set aside by reason, and yields after each message, as long documents are read in `slices`; it raises
  `DocumentError(index, field, problem)`. `parse` is `json_documents.strict` or `.tolerant`. The route's guard is
  `parts.keys.require`, or `.require_if_given` if the write key may be in the document: then `Documents` looks
  there.
- Anything else: an async callable `(Arrival) -> Answer` that may raise `Refusal`; its guard returns None if the
  handler checks by itself. It writes with `await parts.kafka.write([KafkaRecord(topic, key, value, headers)])`: this
  returns once Kafka has acknowledged all of them, and raises `Refusal` (503) if Kafka does not.

Reasons for setting aside are listed in `routes.SET_ASIDE_REASONS`; further metrics go into `parts.metrics.registry`.
"""
