"""The two wire formats: the header before an Avro body, and how they are told apart.

In: a fingerprint or a schema id. Out: the header's bytes. Sources: "Single-object encoding" in the Avro
specification; Confluent's "Wire format".
"""

from __future__ import annotations

from typing import Final

SINGLE_OBJECT_MAGIC: Final = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES: Final = 10
CONFLUENT_MAGIC: Final = b"\x00"
CONFLUENT_HEADER_BYTES: Final = 5
MAX_SCHEMA_ID: Final = 2**31 - 1
"""Registries number schemas with Java's int; the four bytes of a record can contain more."""


def single_object_header(fingerprint: bytes) -> bytes:
    """`C3 01` and the writer schema's CRC-64-AVRO `fingerprint`: 8 bytes, little-endian."""
    return SINGLE_OBJECT_MAGIC + fingerprint


def confluent_header(schema_id: int) -> bytes:
    """`00` and the registry's id of the writer schema: 4 bytes, big-endian.

    Raises ValueError for an id that no registry returns.
    """
    if not 0 <= schema_id <= MAX_SCHEMA_ID:
        raise ValueError(f"schema id {schema_id} is impossible; a registry's ids are 0 to {MAX_SCHEMA_ID}")
    return CONFLUENT_MAGIC + schema_id.to_bytes(4, "big")
