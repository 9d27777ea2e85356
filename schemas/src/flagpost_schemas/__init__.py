"""Flagpost's events: typed classes, their Avro schemas, and both wire formats.

from flagpost_schemas import Decoder, encode_single_object

value = encode_single_object(event)
assert Decoder().decode(value) == event
"""

from flagpost_schemas.avro import AvroSchema, fingerprints, schema_of, versions_of
from flagpost_schemas.body import compile_body
from flagpost_schemas.decode import Decoder
from flagpost_schemas.encode import encode_body, encode_confluent, encode_decision, encode_single_object
from flagpost_schemas.errors import (
    DecodeError,
    EncodeError,
    SchemaError,
    SchemaNeeded,
    UndecodableRecord,
    UnknownSchema,
)
from flagpost_schemas.event_ids import new_event_id
from flagpost_schemas.events import (
    EVENT_TYPES,
    AccountMetadata,
    Context,
    DecisionEvent,
    Event,
    MetadataGroup,
    MetadataValue,
    RuleType,
    Scalar,
    Source,
    TrackEvent,
    VisitorMetadata,
    partition_key,
    variation_as_sent,
)
from flagpost_schemas.flatten import flatten
from flagpost_schemas.glance import DECISION_HEADER, Glance, glance
from flagpost_schemas.ledger import (
    LEDGER_SCHEMA,
    LEDGER_VERSIONS,
    EntryForm,
    Gap,
    LedgerEntry,
    Settlements,
    decode_outcomes,
    decode_settlements,
    encode_settlements,
    repeats_of,
    text_in_settlements,
)
from flagpost_schemas.wire import confluent_header, single_object_header

__all__ = [
    "DECISION_HEADER",
    "EVENT_TYPES",
    "LEDGER_SCHEMA",
    "LEDGER_VERSIONS",
    "AccountMetadata",
    "AvroSchema",
    "Context",
    "DecisionEvent",
    "DecodeError",
    "Decoder",
    "EncodeError",
    "EntryForm",
    "Event",
    "Gap",
    "Glance",
    "LedgerEntry",
    "MetadataGroup",
    "MetadataValue",
    "RuleType",
    "Scalar",
    "SchemaError",
    "SchemaNeeded",
    "Settlements",
    "Source",
    "TrackEvent",
    "UndecodableRecord",
    "UnknownSchema",
    "VisitorMetadata",
    "compile_body",
    "confluent_header",
    "decode_outcomes",
    "decode_settlements",
    "encode_body",
    "encode_confluent",
    "encode_decision",
    "encode_settlements",
    "encode_single_object",
    "fingerprints",
    "flatten",
    "glance",
    "new_event_id",
    "partition_key",
    "repeats_of",
    "schema_of",
    "single_object_header",
    "text_in_settlements",
    "variation_as_sent",
    "versions_of",
]
