"""Kafka: reading and decoding records, committing, writing dead letters.

In: settings, topics. Out: decoded records for the service, acknowledgements. Called only by the service and by
commands.
"""
