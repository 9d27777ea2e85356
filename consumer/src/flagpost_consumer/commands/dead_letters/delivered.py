"""What has been delivered, according to the ledger.

In: the ledger topic, the keys that matter. Out: `Claims`, which knows the keys' times. Two events with the same key
are duplicates when their times are less than one ttl apart, in either direction: the rule of `core.books.dedupe`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from flagpost_consumer.commands.dead_letters.assessing import Claim
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.settings import Settings
from flagpost_consumer.terminal.progress import watched
from flagpost_schemas import LedgerEntry, Settlements, UndecodableRecord, UnknownSchema, decode_settlements


class LedgerUnreadable(Exception):  # noqa: N818 (a state of the ledger's, no fault of ours)
    """The ledger contains records that this release cannot read."""


class Claims:
    """Times by key, for the keys that are added; unlike the consumer's, they are kept for good."""

    def __init__(self, ttl_seconds: float) -> None:
        self._ttl_ms = int(ttl_seconds * 1000)
        self._times: dict[bytes, list[int]] = {}

    def add(self, claim: Claim) -> None:
        """Remember a claim."""
        self._times.setdefault(claim.key, []).append(claim.occurred_at)

    def hold(self, claim: Claim) -> bool:
        """Whether a claim is a duplicate of one of these; never with a ttl of 0."""
        return any(abs(at - claim.occurred_at) < self._ttl_ms for at in self._times.get(claim.key, ()))


@dataclass(slots=True)
class Delivered:
    """The track deliveries of a group that may have duplicates."""

    claims: Claims
    damaged: int = 0
    """Ledger records that could not be read."""


def read_delivered(reader: TopicReader, settings: Settings, claims: Collection[Claim]) -> Delivered:
    """Every delivery in the ledger of which one of these claims may be a duplicate.

    Raises:
        LedgerUnreadable: a later release wrote a record: what it settles may be delivered.
    """
    delivered = Delivered(Claims(settings.dedupe.ttl_seconds))
    if not claims:
        return delivered
    topic, keys = settings.kafka.ledger_topic, {claim.key for claim in claims}
    spans = _spans(reader, topic, _earliest_ms(settings, claims))
    total = sum(map(len, spans.values()))
    for message in watched(reader.read(topic, spans), "ledger records read", total):
        settlements = _settlements(message.value())
        if settlements is None:
            delivered.damaged += 1
        elif settlements.group == settings.kafka.group_id:
            _add(delivered.claims, settlements.entries, keys)
    return delivered


def _earliest_ms(settings: Settings, claims: Collection[Claim]) -> int:
    """The earliest moment at which a delivery can have been settled of which one of the claims is a duplicate.

    Its event is less than one ttl older, and was at most delivery.max_future_seconds ahead of the consumer's clock.
    If a delivery was dead-lettered before its event could be read, that may be before the dead letter's own time.
    """
    before_seconds = settings.dedupe.ttl_seconds + settings.delivery.max_future_seconds
    return max(0, min(claim.occurred_at for claim in claims) - int(before_seconds * 1000))


def _spans(reader: TopicReader, topic: str, since_ms: int) -> dict[int, Span]:
    return reader.within(topic, reader.spans(topic), since_ms)


def _settlements(value: bytes | None) -> Settlements | None:
    try:
        return decode_settlements(value)
    except UndecodableRecord:
        return None
    except UnknownSchema as error:
        raise LedgerUnreadable(f"it is not known what was delivered: {error}") from None


def _add(claims: Claims, entries: Iterable[LedgerEntry], keys: set[bytes]) -> None:
    for entry in entries:
        key, occurred_at = entry.dedupe_key, entry.occurred_at
        if entry.outcome != Outcome.DELIVERED or entry.kind != Kind.TRACK:
            continue
        if key is not None and occurred_at is not None and key in keys:
            claims.add(Claim(key, occurred_at))
