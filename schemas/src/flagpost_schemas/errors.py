"""Errors between events and bytes, as types that contain the facts.

Messages never contain a value: ids, properties and attributes may be personal.
"""

from __future__ import annotations


class SchemaError(ValueError):
    """A text that is not an Avro schema, or not one that is safe to read with."""


class EncodeError(ValueError):
    """A value that its Avro schema does not allow.

    `record` is the record's name, `field` the path of the field within it, `problem` what is wrong there.
    """

    def __init__(self, record: str, field: str, problem: str) -> None:
        """Say where (`record`, `field`) and what (`problem`); give no value."""
        super().__init__(f"{record}.{field}: {problem}")
        self.record = record
        self.field = field
        self.problem = problem


class DecodeError(Exception):
    """Bytes that did not become an event; every subclass says why."""


class UndecodableRecord(DecodeError):  # noqa: N818 - says what came, not that it is an error
    """The bytes are not an event, and never will be."""


class UnknownSchema(DecodeError):  # noqa: N818 - says what came, not that it is an error
    """The writer schema is not known here, or cannot be read as one of ours; a later release may know it."""


class SchemaNeeded(DecodeError):  # noqa: N818 - says what came, not that it is an error
    """Confluent bytes whose schema id has not been looked up yet: add or refuse it, then decode again."""

    def __init__(self, schema_id: int) -> None:
        """`schema_id` is the id to ask the schema registry for."""
        super().__init__(f"schema id {schema_id} has to be fetched from the schema registry first")
        self.schema_id = schema_id
