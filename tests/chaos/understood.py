"""Checks that a person can understand a dead letter.

In: a dead letter's reason and detail, and the texts of its record. Out: what is wrong with the detail, if anything.
A person has read each of the sentences below; the fuzz fails on a new sentence until it is read and added here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from flagpost_consumer.core.outcomes import Reason

MAX_CHARACTERS = 300
TELLING_CHARACTERS = 6
"""A shorter id or value may occur in a sentence by chance."""

STRANGER = "; look for what writes to this topic besides Flagpost's publisher and gateway"
AGAIN = r"(; Flagpost asks for it again after \d+ s)?"
MEND = "; fix that, then replay the dead letter"
UPGRADE = "; upgrade Flagpost, then replay the dead letter"
BREACH = "its schema breaks FULL_TRANSITIVE compatibility; publish with one that keeps it"
FUTURE = r"but delivery.max_future_seconds allows \d+; check the clock of the service"
BACKLOG = r"\(delivery.max_pending_per_visitor\)"
ATTEMPTS = r"\(delivery.max_attempts\)"
REPAIR = "; mapping.properties_policy trim would repair it"
READ_AT_SOURCE = ": read it at flagpost-source, and "
READ_THEM_AT_SOURCE = ": read them at flagpost-source, and "
QUOTED = '".*"'

SENTENCES: dict[Reason, tuple[str, ...]] = {
    Reason.UNDECODABLE: (
        r"the record has no value \(a tombstone\)" + STRANGER,
        "the value is empty" + STRANGER,
        r"the value is cut short: \d+ bytes, its header alone has (10|5)" + STRANGER,
        "the value begins with [0-9a-f]{2}( [0-9a-f]{2})?, which is neither Avro's single-object encoding "
        r"\(c3 01\) nor Confluent's format \(00\)" + STRANGER,
        "the body is cut short" + STRANGER,
        "a string in the body is not valid UTF-8" + STRANGER,
        "the body has a branch or symbol that its schema does not have" + STRANGER,
        r"the body does not fit its schema \(\w+\)" + STRANGER,
        "bytes are left after the body" + STRANGER,
    ),
    Reason.UNKNOWN_SCHEMA: (
        "no schema with the fingerprint [0-9a-f]{16} is known to this release" + UPGRADE,
        r"schema id \d+: the record needs a schema registry: set kafka.schema_registry.url" + MEND,
        r"schema id \d+: the registry has no schema with id \d+(, for [\d.]+ s)?" + AGAIN + MEND,
        r"schema id \d+: the schema with id \d+ is [A-Z]+, not Avro" + AGAIN + MEND,
        r"schema id \d+: the schema with id \d+ refers to others, which Flagpost does not follow"
        + AGAIN
        + MEND,
        r"schema id \d+ is impossible: registries give none above 2147483647" + STRANGER,
        r"schema id \d+: it has more than \d+ types, those in what it refers to counted each time" + MEND,
        r"schema id \d+: its types are nested more than \d+ deep" + MEND,
        r"schema id \d+: not an Avro schema \(\w+: .*\)" + MEND,
        r"schema id \d+: not the schema of an Avro record" + MEND,
        r"schema id \d+: its record [\w.]+ is not one of Flagpost's" + MEND,
        r"schema id \d+: the type [\w.]+ contains itself; Flagpost reads no recursive schemas" + MEND,
        r"schema id \d+: an array's items take no bytes; Flagpost reads no such arrays" + MEND,
        r"the writer's \w+ cannot be read as this release's: " + BREACH,
    ),
    Reason.INVALID: (
        r"the event has \d+ bytes \(key and value\), and kafka.max_event_bytes allows \d+; its value is left out here"
        + READ_AT_SOURCE
        + "publish less",
        r"the headers have \d+ bytes, and kafka.max_event_bytes allows \d+; they are left out here"
        + READ_THEM_AT_SOURCE
        + "look for what writes them",
        r"event_id has \d+ characters; at most 128 are allowed",
        r"occurred_at is \d+ s ahead of the consumer's clock, " + FUTURE,
        "occurred_at is before 1970; it must be epoch milliseconds",
        r"(flag_key|event|account_id) is empty; the service must set it",
        "values holds nothing that can be sent; publish at least one field",
        r"values has \d+ fields, but an event may have 1000: publish them in several",
        "metadata needs Pendo's integration key: set pendo.integration_key",
        "a replay of a delivery that the settings do not plan .*; set what it needs, then replay it again",
        f"property {QUOTED} is not a finite number; leave it out instead",
        rf"rule \w+: property {QUOTED} [A-Za-z0-9, ]+" + REPAIR,
        f"rule name_reserved: property {QUOTED} has a reserved name: Pendo keeps the name error for itself; "
        "have the service call it error_message or error_code" + REPAIR,
    ),
    Reason.EXPIRED: (r"older than delivery.max_age_seconds, \d+ s; Pendo ignores events over 7 days old",),
    Reason.REJECTED: (
        r"Pendo answered 4\d\d(: .+)?",
        "Pendo: .+",
        "Pendo refused the record without saying why",
        "Pendo counts it as failed",
        r"Pendo answered \d+ to this delivery twice but accepted others: look at its ids",
    ),
    Reason.ATTEMPTS_EXHAUSTED: (
        r"\d+ attempts failed while other deliveries succeeded; the last: \w+; replay it later " + ATTEMPTS,
    ),
    Reason.VISITOR_BACKLOG: (
        r"over \d+ of this visitor's events wait " + BACKLOG,
        r"this visitor's waiting events use more than their fair share of memory " + BACKLOG,
        r"this id's waiting metadata uses more than its fair share of memory " + BACKLOG,
    ),
}
_PATTERNS = {reason: re.compile("|".join(sentences)) for reason, sentences in SENTENCES.items()}


def complaints(reason: Reason, detail: str, personal: Iterable[str]) -> Iterator[str]:
    """Yields what is hard to understand in a dead letter, and what must not be in it.

    `personal`: the record's ids and values.
    """
    if reason not in _PATTERNS:
        yield f"{reason} is not a reason for a dead letter"
    elif not _PATTERNS[reason].fullmatch(detail):
        yield f"nobody has read this sentence ({reason}): {detail!r}"
    if len(detail) > MAX_CHARACTERS:
        yield f"the detail has {len(detail)} characters, so its end is cut off: {detail!r}"
    if not detail.isprintable():
        yield f"the detail has characters that cannot be shown: {detail!r}"
    if any(text in detail for text in personal if len(text) >= TELLING_CHARACTERS):
        yield f"the detail holds an id or a value: {detail!r}"
