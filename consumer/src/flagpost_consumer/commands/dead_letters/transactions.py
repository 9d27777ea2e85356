"""Puts originals back on the events topic and marks their dead letters, both or neither.

In: replays, in batches. Out: one Kafka transaction for each batch. The transactional id is the group's: a replay that
begins ends the transaction that an earlier one left open, and fences that one if it still runs. So what is read after
`open` is final.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from flagpost_consumer.adapters.kafka.config import MAX_MESSAGE_BYTES, producer_config
from flagpost_consumer.adapters.kafka.dead_letter_writer import HEADER_PREFIX
from flagpost_consumer.commands.dead_letters.records import REPLAY_OF_HEADER, REPLAYED_HEADER, Place
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable, unavailable
from flagpost_consumer.commands.sources.kafka_clients import silent_client
from flagpost_consumer.core.planning.plan import REPLAY_KIND_HEADER
from flagpost_consumer.core.records import Headers
from flagpost_consumer.settings import KafkaSettings
from flagpost_kafka import rights
from flagpost_kafka.rights import Operation, Resource, Right

OPEN_SECONDS = 30.0
"""The broker may first have to end what an earlier replay left open."""
COMMIT_SECONDS = 30.0
ABORT_SECONDS = 5.0
CALL_SECONDS = 0.5
"""How long one call may block: between calls delivery reports are handled, and Ctrl-C is noticed."""
POLL_SECONDS = 0.1

TRANSACTION_SECONDS = 15
"""While a transaction is open, readers of the events topic wait behind it: after a crash for at most this long."""

OWN_PROPERTIES = {
    "transaction.timeout.ms": TRANSACTION_SECONDS * 1000,
    "message.timeout.ms": TRANSACTION_SECONDS * 1000,
    "socket.timeout.ms": 10_000,
    "message.max.bytes": MAX_MESSAGE_BYTES,  # the topic decides how large a record may be
    "batch.num.messages": 1,  # so that each record fails only for its own size
    "queue.buffering.max.messages": 100_000,  # more than a batch, whatever the user's properties say
    "queue.buffering.max.kbytes": 1_000_000,
}

_FENCED = {
    KafkaError._FENCED,  # noqa: SLF001 - librdkafka's public name, as are those below
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
_PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}  # noqa: SLF001
"""The record failed because another record of the transaction did."""


ProducedHeaders = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One dead letter to replay."""

    place: Place
    source: str
    """`topic/partition/offset` of the original."""
    kind: str
    """The deliveries to plan."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    """The dead letter's."""


class _TooLarge(Exception):  # noqa: N818 - told to the caller above, who goes on without these
    """The events topic refuses replays because of their size."""

    def __init__(self, places: frozenset[Place]) -> None:
        self.places = places
        super().__init__()


class ReplayProducer:
    """The only producer of a group's replays."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """Connects in the background.

        Raises:
            SettingsError: librdkafka refuses a property.
        """
        self._kafka = kafka
        self._transactional_id = f"flagpost-replay-{kafka.group_id}"
        self._needed = (
            Right(Operation.WRITE, Resource.TRANSACTIONAL_ID, self._transactional_id),
            rights.writes(kafka.topic),
            rights.writes(kafka.dead_letter_topic),
        )
        self._last_error = ""
        self._unreported = 0
        self._failures: dict[Place, KafkaError] = {}
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        own = {
            **OWN_PROPERTIES,
            "transactional.id": self._transactional_id,
            "error_cb": self._remember,
        }
        return silent_client(Producer, {**producer_config(self._kafka), **own})

    def open(self) -> None:
        """Become the only replaying producer; earlier transactions have ended when this returns.

        Raises:
            KafkaUnavailable: no answer, or no right to use the transactional id.
        """
        try:
            self._until_done(self._producer.init_transactions, OPEN_SECONDS)
        except KafkaException as error:
            raise self._explained(error.args[0]) from None

    def replay(self, batch: Sequence[Replay]) -> frozenset[Place]:
        """Replay a batch; returns the places of those that are too large, which are not replayed.

        Raises:
            KafkaUnavailable: the batch was not replayed (or it was, if Kafka went away at its very end).
        """
        refused: frozenset[Place] = frozenset()
        try:
            while fitting := [replay for replay in batch if replay.place not in refused]:
                try:
                    self._transact(fitting)
                except _TooLarge as error:
                    refused |= error.places
                    self._until_done(self._producer.abort_transaction, ABORT_SECONDS)
                    # On a busy machine this client may send nothing of its next transaction until it times out.
                    self._producer = self._new_producer()
                    self.open()
                else:
                    break
        except KafkaException as error:
            self._give_up()
            raise self._explained(error.args[0]) from None
        return refused

    def _transact(self, batch: Sequence[Replay]) -> None:
        self._unreported = 0
        self._failures.clear()
        self._producer.begin_transaction()
        try:
            for replay in batch:
                self._produce(replay)
        except KafkaException:
            self._await_reports()  # librdkafka takes no more records once one has failed: that one says why
            raise
        self._await_reports()
        self._until_done(self._producer.commit_transaction, COMMIT_SECONDS)

    def _produce(self, replay: Replay) -> None:
        original: ProducedHeaders = [
            header for header in replay.headers if not header[0].startswith(HEADER_PREFIX)
        ]
        ours: ProducedHeaders = [
            (REPLAY_OF_HEADER, replay.source.encode()),
            (REPLAY_KIND_HEADER, replay.kind.encode()),
        ]
        marker: ProducedHeaders = [(REPLAYED_HEADER, str(replay.place).encode())]
        on_delivery = partial(self._reported, replay.place)
        self._producer.produce(
            self._kafka.topic, replay.value, replay.key, headers=[*original, *ours], on_delivery=on_delivery
        )
        self._unreported += 1
        self._producer.produce(
            self._kafka.dead_letter_topic,
            None,
            replay.key,
            replay.place.partition,
            headers=marker,
            on_delivery=on_delivery,
        )
        self._unreported += 1

    def _reported(self, place: Place, error: KafkaError | None, message: Message) -> None:
        self._unreported -= 1
        if error is not None and error.code() not in _PURGED:
            self._failures[place] = rights.named(error, rights.writes(message.topic() or ""))

    def _await_reports(self) -> None:
        """Wait until Kafka has everything, for message.timeout.ms at most.

        After one failure librdkafka sends nothing more of the transaction.
        """
        while self._unreported and not self._failures:
            self._poll()
        too_large = {
            p for p, error in self._failures.items() if error.code() == KafkaError.MSG_SIZE_TOO_LARGE
        }
        if too_large:
            raise _TooLarge(frozenset(too_large))
        for failure in self._failures.values():
            raise KafkaException(failure)

    def _until_done(self, call: Callable[[float], None], seconds: float) -> None:
        """Repeat a call of the transaction as librdkafka requires: a call that timed out is resumed."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                call(CALL_SECONDS)
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise self._named(error) from None
            else:
                return
            self._poll()

    def _poll(self) -> None:
        """Raises KafkaException, also for a fatal error."""
        try:
            self._producer.poll(POLL_SECONDS)
        except KafkaException as error:
            raise self._named(error) from None

    def _named(self, error: KafkaException) -> KafkaException:
        """The same error, with the missing right."""
        return KafkaException(rights.named(error.args[0], *self._needed))

    def _give_up(self) -> None:
        """Abort, so that readers of the events topic need not wait for the transaction's time-out."""
        with suppress(KafkaException):
            self._until_done(self._producer.abort_transaction, ABORT_SECONDS)

    def _explained(self, error: KafkaError) -> KafkaUnavailable:
        if error.code() in _FENCED:
            return KafkaUnavailable(
                f"this replay ends, because another replay of the group {self._kafka.group_id} started after it "
                f"(or because it made no progress for {TRANSACTION_SECONDS} s)"
            )
        return unavailable(self._kafka.bootstrap_servers or "", error, self._last_error)

    def _remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's public name
            self._last_error = error.str()
