"""A server that behaves like Pendo, enforces Pendo's rules, and can be told to fail.

In: what a client sends to Pendo. Out: Pendo's answers, and a record of every request, with each rule that it broke.
In the same process:

    async with PendoStandIn() as pendo:
        ...  # send to pendo.track_url and pendo.api_url
        assert not pendo.received.violations

As a program: `python -m flagpost_consumer.demo.pendo_stand_in`, which other processes control under `/_stand_in/`.
"""

from flagpost_consumer.demo.pendo_stand_in.config import (
    Enforcement,
    Keys,
    MetadataField,
    StandInConfig,
    UnmappedFields,
)
from flagpost_consumer.demo.pendo_stand_in.faults import (
    CLOSE_AFTER_RECORDING,
    CLOSE_BEFORE_RECORDING,
    HANG,
    NOT_HTTP,
    OK,
    Fault,
    Faults,
    RetryAfterForm,
)
from flagpost_consumer.demo.pendo_stand_in.received import Fate, Received, ReceivedLog, Violation
from flagpost_consumer.demo.pendo_stand_in.rules import Rule
from flagpost_consumer.demo.pendo_stand_in.server import PendoStandIn
from flagpost_consumer.demo.pendo_stand_in.traffic import Ending, Endpoint, Group, Kind

__all__ = [
    "CLOSE_AFTER_RECORDING",
    "CLOSE_BEFORE_RECORDING",
    "HANG",
    "NOT_HTTP",
    "OK",
    "Ending",
    "Endpoint",
    "Enforcement",
    "Fate",
    "Fault",
    "Faults",
    "Group",
    "Keys",
    "Kind",
    "MetadataField",
    "PendoStandIn",
    "Received",
    "ReceivedLog",
    "RetryAfterForm",
    "Rule",
    "StandInConfig",
    "UnmappedFields",
    "Violation",
]
