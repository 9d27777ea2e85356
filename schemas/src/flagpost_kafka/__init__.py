"""Writes to Kafka for every program of ours: one producer with one policy about errors.

In: records, and librdkafka's properties. Out: word of each record: Kafka has it, or an error that concerns it. Errors
that end a librdkafka producer end here: it is replaced, and what was not acknowledged is written again.
Used by the Publisher, the gateway, the consumer and its commands. Needs confluent-kafka, which flagpost-publisher and
flagpost-consumer bring along.
"""

from importlib.util import find_spec

if find_spec("confluent_kafka") is None:
    raise ModuleNotFoundError(
        "flagpost_kafka needs confluent-kafka: pip install 'confluent-kafka>=2.16,<3'", name="confluent_kafka"
    )
